"""Rows of a table, with a gradient that is a product."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.ops.linear_call import linear_call


def look_up(
    table: Float[Array, "row width"], index: Int[Array, "batch"]
) -> Float[Array, "batch width"]:
    """Rows of a table.

    Its gradient is a product: that of an indexing is a scatter, which adds in any order
    on GPUs, and one row after the other on TPUs.
    """
    return linear_call(
        lambda i, rows: rows[i],
        partial(_add_rows, num_rows=len(table)),
        (index,),
        table,
    )


def _add_rows(
    index: Int[Array, "batch"], g: Float[Array, "batch width"], num_rows: int
) -> Float[Array, "row width"]:
    one_hot = jax.nn.one_hot(index, num_rows, dtype=g.dtype)
    return jnp.einsum("br,bw->rw", one_hot, g, precision=jax.lax.Precision.HIGHEST)
