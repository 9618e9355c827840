"""From a Flax module to a `Backbone`: modules end here, pure functions begin."""

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

    def inputs() -> tuple:
        label = jnp.zeros(1, jnp.int32) if num_classes else None
        return jnp.zeros((1, *image_shape)), jnp.zeros(1), label

    def outputs(
        params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> Any:
        _check_label(label, num_classes)
        return network.apply({"params": params}, x, t, label)

    def with_variance(
        params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        channels = x.shape[-1]
        output = outputs(params, x, t, label)
        return output[..., :channels], output[..., channels:]

    def apply(
        params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        if learned_variance:
            return with_variance(params, x, t, label)[0]
        output = outputs(params, x, t, label)
        return output[-1] if by_scale else output

    def features(
        params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        _check_label(label, num_classes)
        return network.apply({"params": params}, x, t, label, return_features=True)  # type: ignore[return-value]

    return Backbone(
        make_init(network, inputs),
        apply,
        features,
        image_shape,
        num_classes,
        graph,
        null_label,
        attention,
        by_scale=outputs if by_scale else None,
        with_variance=with_variance if learned_variance else None,
    )


def _check_label(label: jax.Array | None, num_classes: int) -> None:
    if (label is None) != (num_classes == 0):
        raise InputError(
            f"A backbone with num_classes={num_classes} needs "
            f"{'labels' if num_classes else 'label=None'}, got "
            f"{'None' if label is None else 'labels'}."
        )
