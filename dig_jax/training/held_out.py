"""The loss on held-out images by noise level, on its way through a run."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Array, Float

from dig_jax.data.loader import load_batches
from dig_jax.devices.compiling import compile_lowered
from dig_jax.devices.sharding import replicated
from dig_jax.diffusion import noise_level_losses
from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import Params
from dig_jax.reporting.metric_writer import HELD_OUT_LOSS, MetricWriter, read_metrics
from dig_jax.storage.state import TrainState
from dig_jax.training.clean import clean_images
from dig_jax.training.setup import TrainingSetup

SEED = 0
"""Of the images, their times and their noise: the same in every run."""


def was_measured(workdir: AnyPath, step: int) -> bool:
    """Whether a run's metrics have the held-out loss of a step."""
    rows = (row for row in read_metrics(workdir) if row["step"] == step)
    return any(f"{HELD_OUT_LOSS}mean" in row for row in rows)


class HeldOutLoss:
    """The averaged parameters' loss on a batch of test images, always the same ones.

    Each image is noised once in each tenth of the times, by the same noise every time,
    and not mirrored; the error is in the space that the run is trained in.

    Args:
        setup: Of the run; `held_out` are the images.
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self._setup = setup
        self._compiled: Callable[..., Array] | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether measuring begins at once."""
        return self._compiled is not None

    def compile(self) -> None:
        """Compile what measures."""
        setup = self._setup
        experiment, abstract = setup.experiment, setup.programs.abstract_state
        backbone, objective = experiment.backbone, experiment.objective
        unmirrored = replace(experiment.data, random_flip=False)

        def measure(params: Params, image: Array, label: Array) -> Float[Array, "bin"]:
            key = jax.random.key(SEED)
            losses = noise_level_losses(
                backbone.apply,
                params,
                experiment.sde,
                jax.random.fold_in(key, 1),
                clean_images(key, image, unmirrored),
                label if backbone.num_classes else None,
                objective=objective,
                loss_spaces=(objective.loss_space,),
            )
            return losses[objective.loss_space].mean(axis=1)

        jitted = jax.jit(measure, out_shardings=replicated(setup.mesh))
        lowered = jitted.lower(abstract.ema, *setup.programs.abstract_batch)
        self._compiled = compile_lowered(lowered)

    def measure(self, state: TrainState) -> Float[np.ndarray, "bin"]:
        """The mean loss in each tenth of the times, from data to noise."""
        if self._compiled is None:
            self.compile()
        assert self._compiled is not None
        return np.asarray(self._compiled(state.ema, *self._batch))

    def tell(
        self, state: TrainState, writer: MetricWriter | None, say: Callable[[str], None]
    ) -> None:
        """Measure a state, say the mean, and write it with its parts."""
        by_level, step = self.measure(state), int(state.step)
        mean = float(by_level.mean())
        say(f"step {step}: held-out loss {mean:.4f}")
        if writer is not None:
            named = {f"{HELD_OUT_LOSS}bin_{i:02d}": x for i, x in enumerate(by_level)}
            writer.write(step, {f"{HELD_OUT_LOSS}mean": mean, **named})

    @cached_property
    def _batch(self) -> tuple[jax.Array, jax.Array]:
        """As many images as a training step takes, and their labels."""
        setup = self._setup
        assert setup.held_out is not None, "training.held_out_every is 0"
        batches = load_batches(
            setup.held_out,
            batch_size=setup.options.batch_size,
            seed=SEED,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=1,
            max_damaged_share=setup.experiment.data.max_damaged_share,
        )
        with closing(batches):
            return setup.place(next(batches))
