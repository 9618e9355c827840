"""Products of constant matrices with the nodes of each image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.products import DType

Rows = Float[Array, "_ width"]
Column = Float[np.ndarray, "_ 1"]


def column(values: Float[np.ndarray, "node"]) -> Float[np.ndarray, "node 1"]:
    """A value for each node, in float32, beside the axis of the width."""
    return values.astype(np.float32)[:, None]


def scaled(
    h: Float[Array, "*nodes width"], factors: Float[np.ndarray, "*factor 1"]
) -> Float[Array, "*nodes width"]:
    """Features times the factors of their nodes; no operation where all are 1."""
    return h if np.all(factors == 1) else h * factors


def node_product(
    matrix: Float[np.ndarray, "out node"],
    h: Rows,
    dtype: DType,
    *,
    before: Column | None = None,
    after: Column | None = None,
) -> Rows:
    """after (matrix (before h)) of each image, summed in float32, of the type of h.

    Cotangents are rounded as they go in, as features are.

    Args:
        matrix: Exact in bfloat16, if that is what is multiplied in.
        h: [batch * node, width].
        dtype: float32, or else operands in bfloat16.
        before: Factors of the nodes; 1 if not given.
        after: Factors of the results; 1 if not given.
    """
    rows, cols = matrix.shape
    before = np.ones((cols, 1), np.float32) if before is None else before
    after = np.ones((rows, 1), np.float32) if after is None else after
    forward = _times(matrix, before, after, dtype)
    return linear_call(forward, _times(matrix.T, after, before, dtype), (), h)


def _times(
    matrix: Float[np.ndarray, "out node"], before: Column, after: Column, dtype: DType
) -> Callable[[Rows], Rows]:
    """h to after (matrix (before h))."""
    exact = dtype == "float32"
    operand = jnp.float32 if exact else jnp.bfloat16

    def times(h: Rows) -> Rows:
        batch = len(h) // len(before)
        # Scaled as rows: on a TPU by what computed them, not for each tile of the
        # product.
        features = scaled(h, np.tile(before, (batch, 1))).astype(operand)
        total = jnp.einsum(
            "vu,bud->bvd",
            jnp.asarray(matrix, operand),
            features.reshape(batch, len(before), -1),  # [batch, node, width]
            precision=jax.lax.Precision.HIGHEST if exact else None,
            preferred_element_type=jnp.float32,
        )
        if target_platform() == "gpu":
            # As it leaves the product; factors and what follows are another kernel.
            total = total.astype(h.dtype)
        # [batch, out, width] to [batch * out, width]
        return scaled(total, after).astype(h.dtype).reshape(-1, h.shape[-1])

    return times
