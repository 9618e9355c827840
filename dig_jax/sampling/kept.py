"""Samplers that are kept, so that each program is compiled once."""

from collections import OrderedDict
from collections.abc import Callable

from jax.sharding import Mesh

from dig_jax.interfaces import Params, UInt8Images
from dig_jax.options import SampleOptions
from dig_jax.reporting.progress import Progress
from dig_jax.sampling.groups import program_of
from dig_jax.sampling.inpainting import KnownPixels
from dig_jax.sampling.sampler import Sampler

MOST_KEPT = 8


class KeptSamplers:
    """The samplers of one network that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[SampleOptions, bool], Sampler] = OrderedDict()

    def find_or_make(
        self,
        options: SampleOptions,
        mesh: Mesh,
        make: Callable[[], Sampler],
        known: KnownPixels | None = None,
    ) -> Sampler:
        """A sampler with these options, compiled if one of its program was.

        Args:
            options: How images are drawn, checked.
            mesh: The devices that they are drawn on.
            make: Makes it where none is kept.
            known: Pixels that its images shall have; None for new images.
        """
        program = program_of(options, mesh), known is not None
        if program not in self._kept:
            self._kept[program] = make().with_known(known)
        self._kept.move_to_end(program)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[program].with_options(options).with_known(known)


def draw_shown(sampler: Sampler, params: Params) -> UInt8Images:
    """Draw a sampler's images; in a terminal one sees what takes time.

    That is compiling, and more than one batch.

    Raises:
        NonFiniteError: The network's output was not finite.
    """
    wanted = sampler.options.num_images
    quick = sampler.is_compiled and wanted <= sampler.batch_size
    progress = Progress(
        wanted, description="draw", unit="image", silent=quick, plain=False
    )
    with progress:
        if not sampler.is_compiled:
            with progress.compiling("the sampler"):
                sampler.compile(params)
        return sampler.draw(params, progress.update)
