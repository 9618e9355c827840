"""The factors that make a sum over neighbours a mean or a symmetric average."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from dig_jax.errors import InputError
from dig_jax.graphs.graph import Graph

Normalization: TypeAlias = Literal["mean", "sum", "symmetric"]


class NodeFactors(NamedTuple):
    """after * ((A + diag(own)) (before * h)): a factor for each node, padding included.

    Attributes:
        before: Of a node's features as they are sent.
        own: Weight of a self-loop that the graph does not have.
        after: Of what has arrived.
    """

    before: Float[np.ndarray, "node"]
    own: Float[np.ndarray, "node"]
    after: Float[np.ndarray, "node"]


def mean_factors(graph: Graph) -> NodeFactors:
    """GraphSAGE's mean: the rows of A over their sums; 0 where nothing arrives."""
    n = graph.num_padded_nodes
    return NodeFactors(np.ones(n), np.zeros(n), graph.inverse_in_weight)


def sum_factors(graph: Graph) -> NodeFactors:
    """GIN's sum: A as it is."""
    n = graph.num_padded_nodes
    return NodeFactors(np.ones(n), np.zeros(n), np.ones(n))


def symmetric_factors(graph: Graph) -> NodeFactors:
    """GCN's D^-1/2 (A + I) D^-1/2 (arXiv:1609.02907, Eq. 2), D the sums of the rows.

    A node that has a self-loop keeps its weight and gets no other, as in PyTorch
    Geometric's `add_remaining_self_loops`. In a directed graph both factors are of the
    weight that arrives.
    """
    own = np.where(graph.node_mask & (graph.self_weight == 0), 1.0, 0.0)
    degree = graph.in_weight + own
    positive = degree > 0
    root = np.where(positive, 1 / np.sqrt(np.where(positive, degree, 1)), 0.0)
    return NodeFactors(root, own, root)


NORMALIZATIONS: dict[str, Callable[[Graph], NodeFactors]] = {
    "mean": mean_factors,
    "sum": sum_factors,
    "symmetric": symmetric_factors,
}


def node_factors(graph: Graph, normalization: str) -> NodeFactors:
    """The factors of that name for a graph.

    Raises:
        InputError: Unknown name.
    """
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"Unknown normalization {normalization!r}. Available: "
            f"{', '.join(sorted(NORMALIZATIONS))}."
        )
    return NORMALIZATIONS[normalization](graph)
