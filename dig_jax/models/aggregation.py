"""Sums over the neighbours in a static graph: one meaning, computed in three ways.

Each function of AGGREGATIONS takes a graph and a normalization and returns a function
that maps node features [batch * node, width] to

    out[v] = after[v] (sum_u A[v, u] before[u] h[u] + own[v] before[v] h[v]),

with the factors of `dig_jax.graphs.node_factors`: the mean over the neighbours (0 for a
node that nothing arrives at), their sum, or GCN's symmetric average. They are linear,
have no parameters, sum in float32 whatever the type of h, and agree to rounding, so a
checkpoint runs with any of them.

`h` is two-dimensional because batch dimensions in matrix products are slow (see
docs/benchmarks.md); it is reshaped to [batch, node, width] only here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from dig_jax.errors import InputError
from dig_jax.graphs import (
    Graph,
    GridGraph,
    NodeFactors,
    Scale,
    Stencil,
    node_factors,
)

Aggregate: TypeAlias = Callable[
    [Float[Array, "rows width"]], Float[Array, "rows width"]
]
Aggregation: TypeAlias = Literal["auto", "segment", "dense", "stencil"]


def segment_aggregate(
    graph: Graph | GridGraph, normalization: str = "mean"
) -> Aggregate:
    """Gather and `jraph.segment_sum`, image by image. For any graph; the reference."""
    graph = _edge_list(graph)
    before, own, after = node_factors(graph, normalization)
    loops = np.flatnonzero(own).astype(np.int32)
    senders = np.concatenate([graph.senders, loops])
    receivers = np.concatenate([graph.receivers, loops])
    weights = np.concatenate([graph.weights, own[loops]]) * before[senders]
    weights, after = _column(weights), _column(after)

    def aggregate_image(h: Float[Array, "node width"]) -> Float[Array, "node width"]:
        # A hub sums hundreds of messages: in bfloat16 the sum would stop growing.
        messages = _scaled(h.astype(jnp.float32)[senders], weights)
        total = jraph.segment_sum(messages, receivers, graph.num_padded_nodes)
        return _scaled(total, after).astype(h.dtype)

    return _per_image(graph.num_padded_nodes, jax.vmap(aggregate_image))


def dense_aggregate(graph: Graph | GridGraph, normalization: str = "mean") -> Aggregate:
    """A product with the adjacency matrix, between its factors."""
    graph = _edge_list(graph)
    factors = node_factors(graph, normalization)
    # The factors stay out of the matrix: a grid's weights are whole numbers, which
    # bfloat16 holds exactly up to 256.
    adjacency = (graph.adjacency() + np.diag(factors.own)).astype(np.float32)
    before, after = _column(factors.before), _column(factors.after)

    def aggregate(
        h: Float[Array, "batch node width"],
    ) -> Float[Array, "batch node width"]:
        total = jnp.einsum(
            "vu,bud->bvd",
            adjacency.astype(h.dtype),
            _scaled(h, before).astype(h.dtype),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        return _scaled(total, after).astype(h.dtype)

    return _per_image(graph.num_padded_nodes, aggregate)


def stencil_aggregate(
    graph: Graph | GridGraph, normalization: str = "mean"
) -> Aggregate:
    """Shift and add on each grid; hubs and other scales by sums and broadcasts.

    Raises:
        InputError: The graph is no grid.
    """
    if isinstance(graph, Graph):
        raise InputError(
            "Aggregation 'stencil' needs a GridGraph, got a Graph. Available for any "
            "graph: auto, dense, segment."
        )
    factors = node_factors(graph.graph, normalization)
    before, after = _column(factors.before), _column(factors.after)
    hub_loops = _column(factors.own[graph.hubs])
    stencils = _with_self_loops(graph, factors)

    def aggregate(
        h: Float[Array, "batch node width"],
    ) -> Float[Array, "batch node width"]:
        batch, _, width = h.shape
        dtype, h = h.dtype, _scaled(h.astype(jnp.float32), before)
        grids = [
            h[:, scale.nodes].reshape(batch, scale.rows, scale.cols, width)
            for scale in graph.scales
        ]
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
            total = _scaled(total, _on_grid(after, scale))
            totals.append(total.reshape(batch, scale.num_nodes, width))
        if graph.num_hubs:
            patch_sum = jnp.zeros((batch, width))
            for grid, stencil in zip(grids, stencils, strict=True):
                patch_sum = patch_sum + jnp.sum(grid, axis=(1, 2)) * stencil.hub
            hub_total = jnp.broadcast_to(patch_sum[:, None], hubs.shape)
            if np.any(hub_loops):
                hub_total = hub_total + _scaled(hubs, hub_loops)
            totals.append(_scaled(hub_total, after[graph.hubs]))
        padding = graph.num_padded_nodes - graph.num_nodes
        if padding:
            totals.append(jnp.zeros((batch, padding, width)))
        return jnp.concatenate(totals, axis=1).astype(dtype)

    return _per_image(graph.num_padded_nodes, aggregate)


AGGREGATIONS: dict[str, Callable[[Graph | GridGraph, str], Aggregate]] = {
    "segment": segment_aggregate,
    "dense": dense_aggregate,
    "stencil": stencil_aggregate,
}


def create_aggregate(
    name: str, graph: Graph | GridGraph, normalization: str = "mean"
) -> Aggregate:
    """The aggregation of that name over a graph; `auto` chooses for this platform.

    Args:
        name: auto, segment, dense, or on a grid stencil.
        graph: A grid of patches, or any graph (`Graph.from_graphs_tuple`).
        normalization: mean, sum or symmetric.

    Raises:
        InputError: Unknown name or normalization, or a stencil without a grid.
    """
    if name == "auto":
        name = choose_aggregation(
            jax.default_backend(), graph.num_nodes, is_grid=isinstance(graph, GridGraph)
        )
    if name not in AGGREGATIONS:
        raise InputError(
            f"Unknown aggregation {name!r}. Available: "
            f"{', '.join(['auto', *sorted(AGGREGATIONS)])}."
        )
    return AGGREGATIONS[name](graph, normalization)


def choose_aggregation(platform: str, num_nodes: int, *, is_grid: bool = True) -> str:
    """What `auto` means: see "Which aggregation" in docs/benchmarks.md."""
    if platform != "cpu" and num_nodes <= 1024:
        return "dense"
    return "stencil" if is_grid else "segment"


def _edge_list(graph: Graph | GridGraph) -> Graph:
    return graph.graph if isinstance(graph, GridGraph) else graph


def _column(values: Float[np.ndarray, "node"]) -> Float[np.ndarray, "node 1"]:
    return values.astype(np.float32)[:, None]


def _scaled(
    h: Float[Array, "*nodes width"], factors: Float[np.ndarray, "*factor 1"]
) -> Float[Array, "*nodes width"]:
    """Features times the factors of their nodes; no operation where all are 1."""
    return h if np.all(factors == 1) else h * factors


def _with_self_loops(graph: GridGraph, factors: NodeFactors) -> list[Stencil]:
    """The stencils with the patches' own weights, which are alike on a whole scale."""
    return [
        replace(stencil, centre=stencil.centre + float(factors.own[scale.start]))
        for scale, stencil in zip(graph.scales, graph.stencils, strict=True)
    ]


def _per_image(
    num_nodes: int,
    aggregate: Callable[
        [Float[Array, "batch node width"]], Float[Array, "batch node width"]
    ],
) -> Aggregate:
    """Put an aggregation over [batch, node, width] between two reshapes."""

    def aggregate_rows(h: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        return aggregate(h.reshape(-1, num_nodes, h.shape[-1])).reshape(h.shape)

    return aggregate_rows


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
    size = grid.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (1, 1)
    padded = jnp.pad(grid, padding)
    return jax.lax.slice_in_dim(padded, 0, size, axis=axis) + jax.lax.slice_in_dim(
        padded, 2, size + 2, axis=axis
    )


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


def _on_grid(
    values: Float[np.ndarray, "node 1"], scale: Scale
) -> Float[np.ndarray, "row col 1"]:
    return values[scale.nodes].reshape(scale.rows, scale.cols, 1)
