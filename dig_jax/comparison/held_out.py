"""The loss of a variant on test images, the same noise for every variant and seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.data.loader import read_images
from dig_jax.diffusion import noise_level_losses
from dig_jax.errors import NonFiniteError
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
        """Held-out loss in ten bins of t, for each space it is measured in.

        Raises:
            NonFiniteError: That of the noise is not finite.
        """
        if self._losses is None:
            self._losses = self._make_losses()
        losses = {k: np.asarray(values) for k, values in self._losses(params).items()}
        if not np.isfinite(losses["eps"]).all():
            raise NonFiniteError(
                f"the held-out loss is not finite: by noise level {losses['eps']}."
            )
        return {space: values.tolist() for space, values in losses.items()}

    def _make_losses(self) -> Callable[[Params], dict[str, jax.Array]]:
        experiment = self._experiment
        source = open_dataset(experiment, "test")
        held_out = read_images(
            source,
            range(min(MAX_HELD_OUT, len(source))),
            max_damaged_share=experiment.data.max_damaged_share,
        )
        unmirrored = replace(experiment.data, random_flip=False)
        stored = jnp.asarray(held_out.images)
        clean = clean_images(jax.random.key(0), stored, unmirrored)
        labels = jnp.asarray(held_out.labels)
        key = jax.random.key(HELD_OUT_SEED)
        training = experiment.training

        @jax.jit
        def losses(params: Params, x0: jax.Array, label: jax.Array) -> dict[str, Any]:
            by_image = noise_level_losses(
                experiment.backbone.apply,
                params,
                experiment.sde,
                key,
                x0,
                label if experiment.backbone.num_classes else None,
                objective=experiment.objective,
                loss_spaces=LOSS_SPACES,
                batch_size=training.microbatch or training.batch_size,
            )
            return {space: loss.mean(axis=1) for space, loss in by_image.items()}

        return lambda params: losses(params, clean, labels)
