"""Pictures of samples during training."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from dig_jax.errors import NonFiniteError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath
from dig_jax.options import SampleOptions, TrainingOptions
from dig_jax.sampling.choices import check_sample_options
from dig_jax.sampling.grid import sample_grid
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.state import TrainState


def picture_file(workdir: AnyPath, step: int) -> AnyPath:
    """Where the picture of a step is."""
    return workdir / "samples" / f"step_{step}.png"


def of_training(options: SampleOptions) -> SampleOptions:
    """The options as a run in training draws: by its own averages, without a guide."""
    if options.guide:
        options = replace(options, guide="", guidance=1.0)
    return replace(options, sigma_rel=None)


class Preview:
    """Pictures of samples during training, from the same noise each time."""

    def __init__(
        self,
        experiment: Experiment,
        sample_options: SampleOptions,
        options: TrainingOptions,
        mesh: Mesh,
    ) -> None:
        num_classes = experiment.backbone.num_classes
        num_rows = min(num_classes or 10, 10)
        sample_options = replace(
            sample_options,
            num_images=num_rows * options.samples_per_class,
            labels=tuple(range(num_rows)) if num_classes else "balanced",
        )
        check_sample_options(experiment, sample_options)
        self._sampler = Sampler(experiment, sample_options, mesh)
        self._columns = options.samples_per_class

    @property
    def is_compiled(self) -> bool:
        """Whether drawing begins at once."""
        return self._sampler.is_compiled

    def compile(self, state: TrainState) -> None:
        """Compile now; otherwise the first `draw` does."""
        self._sampler.compile(state.ema)

    def draw(
        self, state: TrainState, say: Callable[[str], None]
    ) -> UInt8[np.ndarray, "height width 3"] | None:
        """A grid of samples with the averaged parameters of a state.

        None where one is not finite, which is said: training goes on.
        """
        try:
            images = self._sampler.draw(state.ema)
        except NonFiniteError as error:
            say(f"step {int(state.step)}: not drawn: {error}")
            return None
        labels, names = self._sampler.labels, self._sampler.class_names
        return sample_grid(images, labels, self._columns, names)
