"""Laws of the normalized adjacency matrices."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, node_factors

GRAPHS = {
    "grid": GridGraph.create((8, 12), (2, 4), node_multiple=8).graph,
    "coarse": GridGraph.create((8, 12), (2, 4)).at_scale(1).graph,
    "no hub": GridGraph.create(8, (2,), num_hubs=0, neighbors=8).graph,
}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def matrix(graph, normalization):
    before, own, after = node_factors(graph, normalization)
    return after[:, None] * (graph.adjacency() + np.diag(own)) * before


@graphs
def test_rows_of_the_mean_sum_to_one(graph):
    sums = matrix(graph, "mean").sum(1)
    np.testing.assert_allclose(sums, graph.node_mask, rtol=1e-12)


@graphs
def test_the_sum_is_the_adjacency(graph):
    np.testing.assert_array_equal(matrix(graph, "sum"), graph.adjacency())


@graphs
def test_the_symmetric_matrix_keeps_the_roots_of_the_degrees(graph):
    """Its largest eigenvalue is 1, with eigenvector D^1/2 1."""
    symmetric = matrix(graph, "symmetric")
    np.testing.assert_array_equal(symmetric, symmetric.T)
    real = slice(graph.num_nodes)
    looped = graph.adjacency() + np.diag(node_factors(graph, "symmetric").own)
    root = np.sqrt(looped.sum(1))
    np.testing.assert_allclose((symmetric @ root)[real], root[real], rtol=1e-12)
    assert abs(np.linalg.eigvalsh(symmetric)).max() == pytest.approx(1, abs=1e-12)
    assert not symmetric[graph.num_nodes :].any()


def test_only_nodes_without_a_self_loop_get_one():
    graph = Graph.create(
        np.array([0, 1, 1]), np.array([1, 1, 2]), np.array([2.0, 0.25, 1]), num_nodes=3
    ).padded(4)
    np.testing.assert_array_equal(graph.self_weight, [0, 0.25, 0, 0])
    before, own, after = node_factors(graph, "symmetric")
    np.testing.assert_array_equal(own, [1, 0, 1, 0])
    expected = [1, 2.25**-0.5, 2**-0.5, 0]
    np.testing.assert_allclose(before, expected)
    np.testing.assert_array_equal(before, after)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(InputError, match=r"'max'.*mean, sum, symmetric"):
        node_factors(GRAPHS["grid"], "max")
