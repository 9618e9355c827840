"""The loss of a variant on test images, the same noise for every variant and seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.data.loader import read_all
from dig_jax.diffusion import noise_level_losses
from dig_jax.experiment import Experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.interfaces import Params
from dig_jax.training.clean import clean_images

# Held-out images are noised by this key, the same for every variant and seed.
HELD_OUT_SEED = 20
MAX_HELD_OUT = 1024
LOSS_SPACES = ("eps", "x0")


class HeldOutLosses:
    """Losses by noise level of one network; the first call reads images and compiles.

    Args:
        experiment: Names network, noise, objective and data; how it is trained does not
            matter.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._losses: Callable[[Params], Any] | None = None

    def __call__(self, params: Params) -> dict[str, list[float]]:
        """Held-out loss in ten bins of t, for each space it is measured in."""
        if self._losses is None:
            self._losses = self._make_losses()
        losses = self._losses(params)
        return {space: np.asarray(values).tolist() for space, values in losses.items()}

    def _make_losses(self) -> Callable[[Params], dict[str, jax.Array]]:
        experiment = self._experiment
        held_out = read_all(open_dataset(experiment, "test"))
        stored = jnp.asarray(held_out.images[:MAX_HELD_OUT])
        unmirrored = replace(experiment.data, random_flip=False)
        x0 = clean_images(jax.random.key(0), stored, unmirrored)
        label = jnp.asarray(held_out.labels[:MAX_HELD_OUT])
        key = jax.random.key(HELD_OUT_SEED)

        @jax.jit
        def losses(params: Params) -> dict[str, jax.Array]:
            by_image = noise_level_losses(
                experiment.backbone.apply,
                params,
                experiment.sde,
                key,
                x0,
                label if experiment.backbone.num_classes else None,
                objective=experiment.objective,
                loss_spaces=LOSS_SPACES,
            )
            return {space: loss.mean(axis=1) for space, loss in by_image.items()}

        return losses
