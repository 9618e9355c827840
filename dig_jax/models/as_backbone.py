"""From a Flax module to a `Backbone`: modules end here, pure functions begin."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph
from dig_jax.interfaces import Backbone, Params
from dig_jax.models.first_params import make_init


def as_backbone(
    network: nn.Module,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    graph: GridGraph | None = None,
    null_label: bool = False,
    attention: str | None = None,
    by_scale: bool = False,
    learned_variance: bool = False,
) -> Backbone:
    """Turn a module whose call is (x, t, label, return_features) into functions.

    Args:
        network: The module.
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        graph: What it passes messages on.
        null_label: Whether there is a label for "no class".
        by_scale: Its output is a tuple of predictions, the last the finest.
        learned_variance: Its output has a channel of variance for each of an image's,
            behind those.

    Raises:
        InputError: A label for "no class" where there are no classes.
    """
    if null_label and not num_classes:
        raise InputError(
            "An unconditional backbone (num_classes=0) has no labels to drop; "
            "objective.label_dropout must be 0."
        )

    calls = _Calls(network, num_classes, by_scale, learned_variance)

    return Backbone(
        make_init(network, partial(_inputs, image_shape, num_classes)),
        calls.apply,
        calls.features,
        image_shape,
        num_classes,
        graph,
        null_label,
        attention,
        by_scale=calls.outputs if by_scale else None,
        with_variance=calls.with_variance if learned_variance else None,
    )


def _inputs(image_shape: tuple[int, int, int], num_classes: int) -> tuple:
    label = jnp.zeros(1, jnp.int32) if num_classes else None
    return jnp.zeros((1, *image_shape)), jnp.zeros(1), label


@dataclass(frozen=True, eq=False)
class _Calls:
    """A module's outputs as functions of its parameters, image, time and label."""

    network: nn.Module
    num_classes: int
    by_scale: bool
    learned_variance: bool

    def apply(
        self, params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        """The prediction of the image's own shape."""
        if self.learned_variance:
            return self.with_variance(params, x, t, label)[0]
        output = self.outputs(params, x, t, label)
        return output[-1] if self.by_scale else output

    def with_variance(
        self, params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The prediction, and the channels of variance behind it."""
        channels = x.shape[-1]
        output = self.outputs(params, x, t, label)
        return output[..., :channels], output[..., channels:]

    def outputs(
        self, params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> Any:
        """All that the module predicts."""
        _check_label(label, self.num_classes)
        return self.network.apply({"params": params}, x, t, label)

    def features(
        self, params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        """The features of each block."""
        _check_label(label, self.num_classes)
        return self.network.apply({"params": params}, x, t, label, return_features=True)  # type: ignore[return-value]


def _check_label(label: jax.Array | None, num_classes: int) -> None:
    if (label is None) != (num_classes == 0):
        raise InputError(
            f"A backbone with num_classes={num_classes} needs "
            f"{'labels' if num_classes else 'label=None'}, got "
            f"{'None' if label is None else 'labels'}."
        )
