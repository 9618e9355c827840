"""Sums over the neighbours in a static graph: one meaning, computed in three ways.

Each function of AGGREGATIONS takes a graph and a normalization and returns a function
that maps node features [batch * node, width] to

    out[v] = after[v] (sum_u A[v, u] before[u] h[u] + own[v] before[v] h[v]),

with the factors of `dig_jax.graphs.node_factors`: the mean over the neighbours (0 for a
node that nothing arrives at), their sum, or GCN's symmetric average. They are linear,
have no parameters, sum in float32 whatever the type of h, and agree to rounding, so a
checkpoint runs with any of them.

`h` is two-dimensional because batch dimensions in matrix products are slow (see
docs/notes/benchmarks.md); it is reshaped to [batch, node, width] only here.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, node_factors
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.node_product import column, node_product, scaled
from dig_jax.ops.stencil import stencil_sum

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
    weights, after = column(weights), column(after)

    def aggregate_image(h: Float[Array, "node width"]) -> Float[Array, "node width"]:
        # A hub sums hundreds of messages: in bfloat16 the sum would stop growing.
        messages = scaled(h.astype(jnp.float32)[senders], weights)
        total = jraph.segment_sum(messages, receivers, graph.num_padded_nodes)
        return scaled(total, after).astype(h.dtype)

    return _per_image(graph.num_padded_nodes, jax.vmap(aggregate_image))


def dense_aggregate(graph: Graph | GridGraph, normalization: str = "mean") -> Aggregate:
    """A product with the adjacency matrix, between its factors."""
    graph = _edge_list(graph)
    factors = node_factors(graph, normalization)
    # The factors stay out of the matrix: a grid's weights are whole numbers, which
    # bfloat16 holds exactly up to 256.
    adjacency = graph.adjacency() + np.diag(factors.own)
    before, after = column(factors.before), column(factors.after)

    def aggregate(h: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        dtype = "bfloat16" if h.dtype == jnp.bfloat16 else "float32"
        return node_product(adjacency, h, dtype, before=before, after=after)

    return aggregate


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
    before, after = column(factors.before), column(factors.after)
    loops = column(factors.own)
    forward = stencil_sum(graph, loops, before, after)
    # A grid's edges run both ways with one weight: the matrix between the factors is
    # symmetric, and the transpose is the same sum with the factors exchanged.
    backward = stencil_sum(graph, loops, after, before)

    def aggregate(
        h: Float[Array, "batch node width"],
    ) -> Float[Array, "batch node width"]:
        return linear_call(forward, backward, (), h)

    return _per_image(graph.num_padded_nodes, aggregate)


AGGREGATIONS: dict[str, Callable[[Graph | GridGraph, str], Aggregate]] = {
    "segment": segment_aggregate,
    "dense": dense_aggregate,
    "stencil": stencil_aggregate,
}


class MostNodes(NamedTuple):
    """Nodes of a graph up to which `auto` takes a product with the whole matrix.

    Attributes:
        apart: Of a grid without edges between scales, whose stencil shifts rows.
        other: Of any other graph.
    """

    apart: int = 0
    other: int = 0


MOST_DENSE_NODES = {"gpu": MostNodes(other=1024), "tpu": MostNodes(2500, 6000)}


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
        name = choose_aggregation(target_platform(), graph)
    if name not in AGGREGATIONS:
        raise InputError(
            f"Unknown aggregation {name!r}. Available: "
            f"{', '.join(['auto', *sorted(AGGREGATIONS)])}."
        )
    return AGGREGATIONS[name](graph, normalization)


def choose_aggregation(platform: str, graph: Graph | GridGraph) -> str:
    """What `auto` means: see "Which aggregation" in docs/notes/benchmarks.md."""
    is_grid = isinstance(graph, GridGraph)
    most = MOST_DENSE_NODES.get(platform, MostNodes())
    limit = most.apart if is_grid and not graph.across else most.other
    if graph.num_nodes <= limit:
        return "dense"
    return "stencil" if is_grid else "segment"


def _edge_list(graph: Graph | GridGraph) -> Graph:
    return graph.graph if isinstance(graph, GridGraph) else graph


def _per_image(
    num_nodes: int,
    aggregate: Callable[
        [Float[Array, "batch node width"]], Float[Array, "batch node width"]
    ],
) -> Aggregate:
    """Put an aggregation over [batch, node, width] between two reshapes."""

    def aggregate_rows(h: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        # [batch * node, width] to [batch, node, width] and back
        return aggregate(h.reshape(-1, num_nodes, h.shape[-1])).reshape(h.shape)

    return aggregate_rows
