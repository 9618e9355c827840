"""Draw images with a trained backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt8
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.config import call_with_section
from dig_jax.data.transforms import to_uint8
from dig_jax.diffusion import make_denoiser
from dig_jax.diffusion.guidance import (
    Guidance,
    check_guidance,
    make_autoguided_denoiser,
    make_guided_denoiser,
)
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.images import choose_scale, image_grid
from dig_jax.interfaces import (
    SDE,
    Backbone,
    Denoiser,
    Images,
    Params,
    Solver,
    UInt8Images,
)
from dig_jax.samplers import create_solver, create_times, default_time_grid, sample
from dig_jax.sharding import DATA_AXIS

LabelRule: TypeAlias = str | int | Sequence[int]

# Images are computed in groups of a fixed size, whatever the batch: how a matrix
# product rounds depends on its shape, and so would an image on its batch.
GROUP_SIZE = {"cpu": 16}
ACCELERATOR_GROUP_SIZE = 64


@dataclass(frozen=True)
class SampleOptions:
    """How images are drawn.

    Attributes:
        solver: Entry of SOLVERS.
        num_steps: Steps of the solver; for dpm_solver the evaluations of the network.
        order: Highest order of a step, for solvers that have several; None for the
            solver's own.
        eta: Share of new noise, for solvers that may have some; None for their own.
        time_grid: Entry of TIME_GRIDS, or "auto" for what suits the solver.
        t_start: Time at which the solver starts.
        t_end: Time at which it stops.
        guidance: Scale w of guidance, D_worse + w (D - D_worse); 1 for none.
        guidance_interval: (least, greatest) time at which to guide.
        guidance_schedule: constant or power_cosine.
        guidance_power: Exponent of power_cosine.
        guide: Workdir of a worse run to guide by (autoguidance); "" to guide by this
            network without labels.
        guide_step: The guide's checkpoint; None for its newest.
        sigma_rel: Relative width of the average of the parameters, made after training
            from a run's post-hoc EMA; None for the average that the run kept.
        num_images: How many to draw.
        labels: "balanced" (each class in turn), one label, or several to go through in
            turn: a tuple, or text such as "0,3,5".
        seed: The same seed gives the same images.
        batch_size: Images in one call of the device; changes no image.
    """

    solver: str = "euler_maruyama"
    num_steps: PositiveInt = 1000
    order: Literal[1, 2, 3] | None = None
    eta: float | None = None
    time_grid: str = "auto"
    t_start: float = 1.0
    t_end: float = 1e-3
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_schedule: Literal["constant", "power_cosine"] = "constant"
    guidance_power: PositiveFloat = 4.0
    guide: str = ""
    guide_step: NonNegativeInt | None = None
    sigma_rel: PositiveFloat | None = None
    num_images: PositiveInt = 100
    labels: str | int | tuple[int, ...] = "balanced"
    seed: NonNegativeInt = 0
    batch_size: PositiveInt = 64

    def create_solver(self, sde: SDE) -> Solver:
        """The solver that is named, for an SDE.

        Raises:
            InputError: Unknown, or it does not take these options.
        """
        given = {"order": self.order, "eta": self.eta}
        given = {key: value for key, value in given.items() if value is not None}
        return create_solver(self.solver, sde, self.num_steps, **given)

    def create_times(self, sde: SDE) -> Float[np.ndarray, "time"]:
        """The times between the solver's steps.

        Raises:
            InputError: Unknown grid, or times that do not work.
        """
        bounds = {"t_start": self.t_start, "t_end": self.t_end}
        grid = self.time_grid
        if grid == "auto":
            grid = default_time_grid(self.solver, sde, **bounds)
        steps = len(self.create_solver(sde).evaluations)
        return create_times(grid, sde, steps, **bounds)

    def create_guidance(self) -> Guidance:
        """How the network is guided.

        Raises:
            InputError: A scale, interval or power that cannot be.
        """
        return Guidance(
            scale=self.guidance,
            interval=self.guidance_interval,
            schedule=self.guidance_schedule,
            power=self.guidance_power,
        )


class Guide(NamedTuple):
    """A worse network that guides another (autoguidance).

    Attributes:
        params: Its parameters.
        backbone: The network, where it is not the guided one's own.
        step: Its checkpoint.
    """

    params: Params
    backbone: Backbone | None
    step: int


def create_sample_options(experiment: Experiment) -> SampleOptions:
    """The sample section, checked.

    Raises:
        InputError: What cannot be drawn with this backbone.
    """
    section = experiment.config.sample.to_dict()
    options = call_with_section("sample", SampleOptions, section)
    return check_sample_options(experiment, options)


def check_sample_options(
    experiment: Experiment, options: SampleOptions
) -> SampleOptions:
    """Raise InputError for a solver, times, labels or guidance that do not work."""
    options.create_times(experiment.sde)
    guidance = options.create_guidance()
    if not options.guide:
        check_guidance(guidance, experiment.backbone)
    choose_labels(options.labels, options.num_images, experiment.backbone.num_classes)
    return options


def choose_labels(
    rule: LabelRule, num_images: int, num_classes: int
) -> Int[np.ndarray, "batch"] | None:
    """The label of each image; None for an unconditional backbone.

    Image i's label depends on the rule and i alone, not on how many are drawn.

    Raises:
        InputError: A label that does not exist, or labels where there are none.
    """
    if num_classes == 0:
        if rule != "balanced":
            raise InputError(
                f"This backbone is unconditional (num_classes=0) and takes no labels; "
                f"got sample.labels={rule!r}. Leave it at 'balanced'."
            )
        return None
    if rule == "balanced":
        choices = tuple(range(num_classes))
    elif isinstance(rule, str):
        try:
            choices = tuple(int(part) for part in rule.strip("()[], ").split(","))
        except ValueError:
            raise InputError(
                f"sample.labels must be 'balanced', a label, or labels such as '0,3', "
                f"got {rule!r}."
            ) from None
    else:
        choices = (rule,) if isinstance(rule, int) else tuple(rule)
    wrong = [label for label in choices if not 0 <= label < num_classes]
    if wrong or not choices:
        raise InputError(
            f"sample.labels must lie in 0 to {num_classes - 1}, got "
            f"{', '.join(map(str, wrong)) or 'none'}."
        )
    return np.resize(np.array(choices, np.int32), num_images)


class Sampler:
    """Draws uint8 images with the parameters it is given; compiles once for all calls.

    Args:
        experiment: Backbone, SDE and prediction target.
        options: Solver, its steps, and the batch; kept as `options`.
        mesh: The devices that images are spread over.
        guide: What to guide by where `options.guide` names a run; kept as `guide`.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: SampleOptions,
        mesh: Mesh,
        guide: Guide | None = None,
    ):
        self._experiment = experiment
        self.options = options
        self.guide = guide
        self._group = GROUP_SIZE.get(
            mesh.devices.flat[0].platform, ACCELERATOR_GROUP_SIZE
        )
        quantum = self._group * mesh.size
        wanted = min(options.batch_size, options.num_images)
        self.batch_size = -(-wanted // quantum) * quantum
        spread = PartitionSpec(DATA_AXIS)
        self._draw_batch = jax.jit(
            jax.shard_map(
                self._draw_on_device,
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(), spread, spread),
                out_specs=spread,
                check_vma=False,
            )
        )
        self._compiled: Callable | None = None

    @property
    def labels(self) -> Int[np.ndarray, "batch"] | None:
        """The label of each image that `draw` gives."""
        options = self.options
        return choose_labels(
            options.labels, options.num_images, self._experiment.backbone.num_classes
        )

    @property
    def _guide_params(self) -> Params | None:
        return self.guide.params if self.guide is not None else None

    def compile(self, params: Params) -> None:
        """Compile now; otherwise the first `draw` does."""
        if self._compiled is None:
            batch = self._batch(0, self.labels)
            self._compiled = self._draw_batch.lower(
                params, self._guide_params, *batch
            ).compile()

    def draw(
        self, params: Params, on_progress: Callable[[int], None] | None = None
    ) -> UInt8Images:
        """Draw `options.num_images` images.

        Args:
            params: Parameters of the backbone.
            on_progress: Called with the number of images drawn so far.

        Raises:
            NonFiniteError: The network's output was not finite.
        """
        self.compile(params)
        assert self._compiled is not None
        labels, drawn = self.labels, []
        for start in range(0, self.options.num_images, self.batch_size):
            images = self._compiled(
                params, self._guide_params, *self._batch(start, labels)
            )
            drawn.append(to_uint8(images))
            if on_progress is not None:
                on_progress(min(start + self.batch_size, self.options.num_images))
        return np.concatenate(drawn)[: self.options.num_images]

    def _batch(
        self, start: int, labels: Int[np.ndarray, "image"] | None
    ) -> tuple[Key[Array, "batch"], Int[np.ndarray, "batch"] | None]:
        """Keys and labels of images start, start + 1, ...; past the end they repeat."""
        index = np.arange(start, start + self.batch_size)
        keys = _image_keys(self.options.seed, index)
        if labels is None:
            return keys, None
        return keys, labels[np.minimum(index, len(labels) - 1)]

    def _draw_on_device(
        self,
        params: Params,
        guide_params: Params | None,
        keys: Key[Array, "batch"],
        labels: Int[Array, "batch"] | None,
    ) -> Images:
        """One device's share of a batch, one group after the other."""
        experiment, options = self._experiment, self.options
        solver = options.create_solver(experiment.sde)
        times = options.create_times(experiment.sde)

        def draw_group(
            group: tuple[Key[Array, "group"], Int[Array, "group"] | None],
        ) -> Images:
            group_keys, group_labels = group
            denoise = self._make_denoiser(params, guide_params, group_labels)
            shape = experiment.backbone.image_shape
            return sample(denoise, solver, times, group_keys, shape, sde=experiment.sde)

        groups = jax.tree.map(
            lambda a: a.reshape(-1, self._group, *a.shape[1:]), (keys, labels)
        )
        images = jax.lax.map(draw_group, groups)
        return images.reshape(-1, *images.shape[2:])

    def _make_denoiser(
        self,
        params: Params,
        guide_params: Params | None,
        labels: Int[Array, "group"] | None,
    ) -> Denoiser:
        """The network, guided as the options say."""
        backbone, sde, objective = (
            self._experiment.backbone,
            self._experiment.sde,
            self._experiment.objective,
        )
        guidance = self.options.create_guidance()
        if self.guide is not None:
            other = self.guide.backbone
            return make_autoguided_denoiser(
                backbone.apply,
                params,
                guide_params,
                sde,
                objective,
                labels,
                guidance=guidance,
                guide_apply=other.apply if other is not None else None,
            )
        if guidance.scale == 1 or labels is None:
            return make_denoiser(backbone.apply, params, sde, objective, labels)
        return make_guided_denoiser(
            backbone.apply,
            params,
            sde,
            objective,
            labels,
            null_label=backbone.num_classes,
            guidance=guidance,
        )


@jax.jit
def _image_keys(seed: int | Array, index: Int[Array, "batch"]) -> Key[Array, "batch"]:
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)


def sample_grid(
    images: UInt8Images, labels: Int[np.ndarray, "batch"] | None, columns: int = 10
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of samples: a row for each of 2 to 20 equally frequent classes.

    Otherwise the first images in the order they have.
    """
    classes = [] if labels is None else list(np.unique(labels))
    rows = [images[labels == label][:columns] for label in classes]
    if 2 <= len(rows) <= 20 and len({len(row) for row in rows}) == 1:
        columns, shown = len(rows[0]), np.concatenate(rows)
    else:
        shown = images[: columns**2]
    return image_grid(shown, columns, scale=choose_scale(max(images.shape[1:3])))
