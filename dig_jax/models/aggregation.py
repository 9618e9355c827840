"""Mean over the neighbours in a static graph: one meaning, computed in three ways.

Each function of AGGREGATIONS takes a `GridGraph` and returns a function that maps node
features [batch * node, width] to

    mean[v] = sum_u A[v, u] h[u] / sum_u A[v, u],

0 for a node that nothing arrives at. They are linear, have no parameters, sum in
float32 whatever the type of h, and agree to rounding, so a checkpoint runs with any of
them.

`h` is two-dimensional because batch dimensions in matrix products are slow (see
docs/benchmarks.md); it is reshaped to [batch, node, width] only here.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, Scale, Stencil

Aggregate: TypeAlias = Callable[
    [Float[Array, "rows width"]], Float[Array, "rows width"]
]
Aggregation: TypeAlias = Literal["auto", "segment", "dense", "stencil"]


def segment_mean(graph: Graph) -> Aggregate:
    """Gather and `jraph.segment_sum`, image by image. For any graph; the reference."""
    inverse = graph.inverse_in_weight.astype(np.float32)[:, None]
    weighted = not np.all(graph.weights == 1)
    weights = graph.weights.astype(np.float32)[:, None]

    def aggregate_image(h: Float[Array, "node width"]) -> Float[Array, "node width"]:
        # A hub sums hundreds of messages: in bfloat16 the sum would stop growing.
        messages = h.astype(jnp.float32)[graph.senders]
        if weighted:
            messages = messages * weights
        total = jraph.segment_sum(messages, graph.receivers, graph.num_padded_nodes)
        return (total * inverse).astype(h.dtype)

    return _per_image(graph.num_padded_nodes, jax.vmap(aggregate_image))


def dense_mean(graph: Graph) -> Aggregate:
    """A product with the adjacency matrix, then the division by its row sums."""
    adjacency = graph.adjacency().astype(np.float32)
    inverse = graph.inverse_in_weight.astype(np.float32)[:, None]

    def aggregate(
        h: Float[Array, "batch node width"],
    ) -> Float[Array, "batch node width"]:
        total = jnp.einsum(
            "vu,bud->bvd",
            adjacency.astype(h.dtype),  # whole numbers, exact in bfloat16 up to 256
            h,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        return (total * inverse).astype(h.dtype)

    return _per_image(graph.num_padded_nodes, aggregate)


def stencil_mean(graph: GridGraph) -> Aggregate:
    """Shift and add on each grid; hubs and other scales by sums and broadcasts."""
    inverse = graph.graph.inverse_in_weight.astype(np.float32)[:, None]

    def aggregate(
        h: Float[Array, "batch node width"],
    ) -> Float[Array, "batch node width"]:
        batch, _, width = h.shape
        dtype, h = h.dtype, h.astype(jnp.float32)
        grids = [
            h[:, scale.nodes].reshape(batch, scale.rows, scale.cols, width)
            for scale in graph.scales
        ]
        hubs = h[:, graph.hubs]
        totals = []
        for i, (grid, scale, stencil) in enumerate(
            zip(grids, graph.scales, graph.stencils, strict=True)
        ):
            total = _add_neighbors(grid, stencil)
            if graph.across:
                total = total + _add_across(grids, i, graph)
            if graph.num_hubs:
                hub_sum = jnp.sum(hubs, axis=1) * stencil.hub
                total = total + hub_sum[:, None, None]
            total = total * _on_grid(inverse, scale)
            totals.append(total.reshape(batch, scale.num_nodes, width))
        if graph.num_hubs:
            patch_sum = jnp.zeros((batch, width))
            for grid, stencil in zip(grids, graph.stencils, strict=True):
                patch_sum = patch_sum + jnp.sum(grid, axis=(1, 2)) * stencil.hub
            hub_mean = patch_sum[:, None] * inverse[graph.hubs]
            totals.append(jnp.broadcast_to(hub_mean, hubs.shape))
        padding = graph.num_padded_nodes - graph.num_nodes
        if padding:
            totals.append(jnp.zeros((batch, padding, width)))
        return jnp.concatenate(totals, axis=1).astype(dtype)

    return _per_image(graph.num_padded_nodes, aggregate)


AGGREGATIONS: dict[str, Callable[[GridGraph], Aggregate]] = {
    "segment": lambda grid: segment_mean(grid.graph),
    "dense": lambda grid: dense_mean(grid.graph),
    "stencil": stencil_mean,
}


def create_aggregate(name: str, graph: GridGraph) -> Aggregate:
    """The aggregation of that name over a graph; `auto` chooses for this platform.

    Raises:
        InputError: Unknown name.
    """
    if name == "auto":
        name = choose_aggregation(jax.default_backend(), graph.num_nodes)
    if name not in AGGREGATIONS:
        raise InputError(
            f"Unknown aggregation {name!r}. Available: "
            f"{', '.join(['auto', *sorted(AGGREGATIONS)])}."
        )
    return AGGREGATIONS[name](graph)


def choose_aggregation(platform: str, num_nodes: int) -> str:
    """What `auto` means: see "Which aggregation" in docs/benchmarks.md."""
    if platform == "cpu":
        return "stencil"
    return "dense" if num_nodes <= 1024 else "stencil"


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
