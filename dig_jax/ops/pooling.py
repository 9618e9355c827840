"""Between the graphs of DiG-parallel's scales: pooling and copying back (App. A.1)."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.graphs import GridGraph
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.node_product import column, node_product, scaled
from dig_jax.ops.products import DType
from dig_jax.ops.stencil import pool_sum, repeat_patches

Rows = Float[Array, "_ width"]


def pool(
    h: Float[Array, "fine_rows width"],
    graph: GridGraph,
    index: int,
    dtype: DType = "float32",
) -> Float[Array, "coarse_rows width"]:
    """Features of the finest graph to those of a coarser one; hubs are kept.

    The mean over the fine patches that a coarse patch covers: the mask C of Eq. 3 with
    its rows normalized. A product with that matrix, but on CPU.
    """
    if target_platform() != "cpu":
        mask = _padded_mask(graph, index)
        sums = np.maximum(mask.sum(1, keepdims=True), 1)
        if target_platform() == "gpu":
            mean, copy = _product_and_copies(mask, 1 / sums, dtype)
            return linear_call(mean, copy, (), h)
        return node_product(mask / sums, h, dtype)
    fine, coarse = graph.at_scale(0), graph.at_scale(index)
    factor = graph.factor(0, index)
    # [batch * node, width] to [batch, node, width]
    per_image = h.reshape(-1, fine.num_padded_nodes, h.shape[-1])
    pooled = pool_sum(fine.scales[0].as_grid(per_image), factor) / factor**2
    return _to_rows(pooled.astype(h.dtype), per_image[:, fine.hubs], coarse)


def unpool(
    h: Float[Array, "coarse_rows width"],
    graph: GridGraph,
    index: int,
    dtype: DType = "float32",
) -> Float[Array, "fine_rows width"]:
    """Features of a coarser graph copied to the patches they cover: C^T h (Eq. 5)."""
    if target_platform() == "gpu":
        mask = _padded_mask(graph, index)
        total, copy = _product_and_copies(mask, np.ones((len(mask), 1)), dtype)
        return linear_call(copy, total, (), h)
    if target_platform() == "tpu":
        return node_product(_padded_mask(graph, index).T, h, dtype)
    fine, coarse = graph.at_scale(0), graph.at_scale(index)
    # [batch * node, width] to [batch, node, width]
    per_image = h.reshape(-1, coarse.num_padded_nodes, h.shape[-1])
    grid = coarse.scales[0].as_grid(per_image)
    copied = repeat_patches(grid, graph.factor(0, index))
    return _to_rows(copied, per_image[:, coarse.hubs], fine)


def _product_and_copies(
    mask: Float[np.ndarray, "coarse_node fine_node"],
    factors: Float[np.ndarray, "coarse_node 1"],
    dtype: DType,
) -> tuple[Callable[[Rows], Rows], Callable[[Rows], Rows]]:
    """h to factors (C h), and its transpose: copies, which are read where needed.

    A GPU makes one kernel of the copies and what they are added to; as a product they
    would be written and read again, at the finest scale.
    """
    coarse = len(mask)
    source = np.argmax(mask, axis=0).astype(np.int32)  # each fine node has at most one
    used = column(mask.sum(axis=0)) * factors[source].astype(np.float32)

    def sum_up(h: Rows) -> Rows:
        return node_product(mask * factors, h, dtype)

    def copy(h: Rows) -> Rows:
        per_image = h.reshape(-1, coarse, h.shape[-1])
        copies = per_image.at[:, source].get(mode="promise_in_bounds")
        return scaled(copies, used).astype(h.dtype).reshape(-1, h.shape[-1])

    return sum_up, copy


def _padded_mask(
    graph: GridGraph, index: int
) -> Float[np.ndarray, "coarse_node fine_node"]:
    """The mask C, with nothing from or to padding."""
    mask = graph.pooling_mask(index)
    rows = graph.at_scale(index).num_padded_nodes - mask.shape[0]
    cols = graph.at_scale(0).num_padded_nodes - mask.shape[1]
    return np.pad(mask, ((0, rows), (0, cols)))


def _to_rows(
    grid: Float[Array, "batch row col width"],
    hubs: Float[Array, "batch hub width"],
    graph: GridGraph,
) -> Rows:
    """Put patches, hubs and padding of a single-scale graph together again."""
    batch, _, _, width = grid.shape
    padding = graph.num_padded_nodes - graph.num_nodes
    # [batch, row, col, width] to [batch, row * col, width]
    parts = [grid.reshape(batch, -1, width), hubs]
    if padding:
        parts.append(jnp.zeros((batch, padding, width), grid.dtype))
    # [batch, node, width] to [batch * node, width]
    return jnp.concatenate(parts, axis=1).reshape(-1, width)
