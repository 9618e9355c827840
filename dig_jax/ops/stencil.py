"""Sums over the neighbours on a grid graph: shifts, and sums over whole grids.

On CPU grids are shifted. On TPU and GPU, where cutting the grids out of the rows costs
more than adding them up, all rows are: a matrix with few diagonals is a sum of shifts,
each times a column of weights.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.graphs import GridGraph, Stencil
from dig_jax.ops.node_product import column, scaled

Nodes = Float[Array, "batch node width"]
Column = Float[np.ndarray, "node 1"]


def stencil_sum(
    graph: GridGraph, own: Column, before: Column, after: Column
) -> Callable[[Nodes], Nodes]:
    """h to after (A + diag(own)) before h, in float32, of the type of h.

    Args:
        graph: Its adjacency matrix is A.
        own: Weight of each node's self-loop besides those of A; alike on a whole scale.
        before: Factor of each node's features as they are sent.
        after: Factor of what has arrived.
    """
    on_grids = graph.across or target_platform() == "cpu"
    return (_sum_on_grids if on_grids else _sum_of_diagonals)(graph, own, before, after)


def _sum_on_grids(
    graph: GridGraph, own: Column, before: Column, after: Column
) -> Callable[[Nodes], Nodes]:
    """By shifting each scale's grid, and summing over it."""
    hub_loops = own[graph.hubs]
    stencils = [
        replace(stencil, centre=stencil.centre + float(own[scale.start, 0]))
        for scale, stencil in zip(graph.scales, graph.stencils, strict=True)
    ]

    def total_of(h: Nodes) -> Nodes:
        batch, _, width = h.shape
        dtype, h = h.dtype, scaled(h.astype(jnp.float32), before)
        grids = [scale.as_grid(h) for scale in graph.scales]
        hubs = h[:, graph.hubs]
        totals = []
        for i, (grid, scale, stencil) in enumerate(
            zip(grids, graph.scales, stencils, strict=True)
        ):
            total = _add_neighbors(grid, stencil)
            if graph.across:
                total = total + _add_across(grids, i, graph)
            if graph.num_hubs:
                hub_sum = jnp.sum(hubs, axis=1) * stencil.hub
                total = total + hub_sum[:, None, None]
            total = scaled(total, scale.as_grid(after))
            totals.append(total.reshape(batch, scale.num_nodes, width))
        if graph.num_hubs:
            patch_sum = jnp.zeros((batch, width))
            for grid, stencil in zip(grids, stencils, strict=True):
                patch_sum = patch_sum + jnp.sum(grid, axis=(1, 2)) * stencil.hub
            hub_total = jnp.broadcast_to(patch_sum[:, None], hubs.shape)
            if np.any(hub_loops):
                hub_total = hub_total + scaled(hubs, hub_loops)
            totals.append(scaled(hub_total, after[graph.hubs]))
        padding = graph.num_padded_nodes - graph.num_nodes
        if padding:
            totals.append(jnp.zeros((batch, padding, width)))
        return jnp.concatenate(totals, axis=1).astype(dtype)

    return total_of


def _sum_of_diagonals(
    graph: GridGraph, own: Column, before: Column, after: Column
) -> Callable[[Nodes], Nodes]:
    """By shifting all rows: for graphs whose scales are apart."""
    diagonals = _diagonals(graph, own, before, after)
    hub_weights = np.zeros_like(before)  # of a patch's edges with the hubs
    for scale, stencil in zip(graph.scales, graph.stencils, strict=True):
        hub_weights[scale.nodes] = stencil.hub
    to_patches = after * hub_weights
    # On a GPU the sum over all nodes is one kernel with what computes them; on a TPU
    # cutting the patches out is cheaper than to have the others times zero.
    summed = slice(None) if target_platform() == "gpu" else slice(graph.num_patches)
    from_patches = (before * hub_weights)[summed]
    to_hubs = np.zeros_like(after)
    to_hubs[graph.hubs] = after[graph.hubs]

    def total_of(h: Nodes) -> Nodes:
        total = jnp.zeros((), jnp.float32)
        for offset, weights in diagonals.items():
            # Rows that a shift would bring from beyond the ends are zeros.
            shifts = [(0, 0, 0), (offset, -offset, 0), (0, 0, 0)]
            shifted = jax.lax.pad(h, jnp.zeros((), h.dtype), shifts)
            total = total + shifted.astype(jnp.float32) * weights
        if graph.num_hubs:
            hubs, grids = h[:, graph.hubs], h[:, summed]
            hubs = scaled(hubs.astype(jnp.float32), before[graph.hubs])
            grids = scaled(grids.astype(jnp.float32), from_patches)
            total = total + jnp.sum(hubs, axis=1, keepdims=True) * to_patches
            total = total + jnp.sum(grids, axis=1, keepdims=True) * to_hubs
        return jnp.broadcast_to(total, h.shape).astype(h.dtype)

    return total_of


def _diagonals(
    graph: GridGraph, own: Column, before: Column, after: Column
) -> dict[int, Column]:
    """Weights of each diagonal of the matrix between the patches, and of self-loops.

    Under d: the weight of h[v - d] in what arrives at v.
    """
    edges = graph.graph
    kept = np.maximum(edges.senders, edges.receivers) < graph.num_patches
    nodes = np.arange(len(own))
    senders = np.concatenate([edges.senders[kept], nodes])
    receivers = np.concatenate([edges.receivers[kept], nodes])
    weights = np.concatenate([edges.weights[kept], own[:, 0]])
    weights = weights * before[senders, 0] * after[receivers, 0]
    diagonals: dict[int, Column] = {}
    for offset in np.unique((receivers - senders)[weights != 0]):
        on_it = receivers - senders == offset
        diagonal = np.zeros(len(own))
        np.add.at(diagonal, receivers[on_it], weights[on_it])
        diagonals[int(offset)] = column(diagonal)
    return diagonals


def _add_neighbors(
    grid: Float[Array, "batch row col width"], stencil: Stencil
) -> Float[Array, "batch row col width"]:
    """Weighted sum over each patch's grid neighbours and itself."""
    above_below = _shift_sum(grid, axis=1)
    left_right = _shift_sum(grid, axis=2)
    total = (above_below + left_right) * stencil.side
    if stencil.corner:
        total = total + _shift_sum(above_below, axis=2) * stencil.corner
    if stencil.centre:
        total = total + grid * stencil.centre
    return total


def _shift_sum(
    grid: Float[Array, "batch row col width"], axis: int
) -> Float[Array, "batch row col width"]:
    """Sum of the two neighbours along an axis; nothing lies beyond the border."""
    return shift_grid(grid, -1, axis) + shift_grid(grid, 1, axis)


def shift_grid(
    grid: Float[Array, "batch row col width"], step: int, axis: int
) -> Float[Array, "batch row col width"]:
    """grid[v + step] along an axis, for a step of -1, 0 or 1; zeros at the border."""
    if step == 0:
        return grid
    size = grid.shape[axis]
    nothing = jnp.zeros_like(jax.lax.slice_in_dim(grid, 0, 1, axis=axis))
    # Not slices of a padded array: XLA:CPU would write that to memory first.
    if step > 0:
        after = jax.lax.slice_in_dim(grid, 1, size, axis=axis)
        return jnp.concatenate([after, nothing], axis)
    before = jax.lax.slice_in_dim(grid, 0, size - 1, axis=axis)
    return jnp.concatenate([nothing, before], axis)


def _add_across(
    grids: list[Float[Array, "batch _ _ width"]], index: int, graph: GridGraph
) -> Float[Array, "batch row col width"]:
    """Sum of the patches of other scales that cover, or are covered by, each patch."""
    total = jnp.zeros(())
    for j, other in enumerate(grids):
        if j < index:
            total = total + pool_sum(other, graph.factor(j, index))
        elif j > index:
            total = total + repeat_patches(other, graph.factor(index, j))
    return total


def pool_sum(
    grid: Float[Array, "batch row col width"], factor: int
) -> Float[Array, "batch coarse_row coarse_col width"]:
    """Sum over the factor x factor patches that each coarser patch covers."""
    batch, rows, cols, width = grid.shape
    blocks = grid.reshape(batch, rows // factor, factor, cols // factor, factor, width)
    return jnp.sum(blocks, axis=(2, 4))


def repeat_patches(
    grid: Float[Array, "batch row col width"], factor: int
) -> Float[Array, "batch fine_row fine_col width"]:
    """Copy each patch to the factor x factor finer patches that it covers."""
    batch, rows, cols, width = grid.shape
    copies = jnp.broadcast_to(
        grid[:, :, None, :, None], (batch, rows, factor, cols, factor, width)
    )
    return copies.reshape(batch, rows * factor, cols * factor, width)
