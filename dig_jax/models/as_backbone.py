"""From a Flax module to a `Backbone`: modules end here, pure functions begin."""

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
) -> Backbone:
    """Turn a module whose call is (x, t, label, return_features) into functions.

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

    def apply(
        params: Params, x: jax.Array, t: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        _check_label(label, num_classes)
        return network.apply({"params": params}, x, t, label)  # type: ignore[return-value]

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
    )


def _check_label(label: jax.Array | None, num_classes: int) -> None:
    if (label is None) != (num_classes == 0):
        raise InputError(
            f"A backbone with num_classes={num_classes} needs "
            f"{'labels' if num_classes else 'label=None'}, got "
            f"{'None' if label is None else 'labels'}."
        )
