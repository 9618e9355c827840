"""Edge lists, padding, and the way to jraph and back."""

import jraph
import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph


def random_graph(rng, num_nodes=7, num_edges=19):
    """Any directed graph: self-loops, double edges and lonely nodes may occur."""
    senders, receivers = rng.integers(0, num_nodes, (2, num_edges))
    weights = rng.uniform(0.5, 2, num_edges)
    return Graph.create(senders, receivers, weights, num_nodes=num_nodes)


def test_adjacency_holds_each_weight_at_receiver_and_sender():
    graph = Graph.create(
        np.array([0, 2, 2]), np.array([1, 0, 0]), np.array([3.0, 5.0, 0.5]), num_nodes=3
    )
    expected = np.zeros((3, 3))
    expected[1, 0], expected[0, 2] = 3, 5.5
    np.testing.assert_array_equal(graph.adjacency(), expected)


def test_in_weight_is_the_row_sum_and_its_inverse_is_zero_where_nothing_arrives(rng):
    graph = random_graph(rng, num_nodes=30)
    sums = graph.adjacency().sum(1)
    assert np.any(sums == 0)
    np.testing.assert_allclose(graph.in_weight, sums)
    np.testing.assert_allclose(
        graph.inverse_in_weight, [1 / s if s else 0 for s in sums]
    )


@pytest.mark.parametrize("multiple", [1, 2, 3, 8, 64])
def test_padding_changes_no_sum(rng, multiple):
    graph = random_graph(rng)
    padded = graph.padded(multiple)
    assert padded.num_padded_nodes % multiple == 0
    assert padded.num_padded_nodes - padded.num_nodes < multiple
    assert (padded.num_nodes, padded.num_edges) == (graph.num_nodes, graph.num_edges)
    adjacency = padded.adjacency()
    n = graph.num_nodes
    np.testing.assert_array_equal(adjacency[:n, :n], graph.adjacency())
    assert adjacency[n:].sum() == adjacency[:, n:].sum() == 0
    np.testing.assert_array_equal(padded.in_weight[:n], graph.in_weight)


def test_masks_mark_what_is_real(rng):
    padded = random_graph(rng).padded(8)
    assert padded.node_mask.tolist() == [True] * 7 + [False]
    assert padded.edge_mask.tolist() == [True] * 19 + [False] * 5
    assert np.all(padded.weights[~padded.edge_mask] == 0)
    for ends in (padded.senders, padded.receivers):
        assert np.all(ends[~padded.edge_mask] == padded.num_padded_nodes - 1)


def test_a_padded_graph_cannot_be_padded_again(rng):
    with pytest.raises(InputError, match="unpadded"):
        random_graph(rng).padded(8).padded(16)


@pytest.mark.parametrize(("end", "named"), [(-1, "-1"), (7, "7")])
def test_edges_that_name_no_node_are_refused(end, named):
    with pytest.raises(InputError, match=rf"0 to 6.*node {named}\."):
        Graph.create(np.array([0, end]), np.array([1, 2]), num_nodes=7)


@pytest.mark.parametrize("multiple", [1, 8])
def test_jraph_round_trip(rng, multiple):
    graph = random_graph(rng).padded(multiple)
    back = Graph.from_graphs_tuple(
        graph.to_graphs_tuple(), num_padding_graphs=int(multiple > 1)
    )
    for name in ("senders", "receivers", "num_nodes", "num_edges", "num_padded_nodes"):
        np.testing.assert_array_equal(getattr(back, name), getattr(graph, name))
    # jraph's edges are float32.
    np.testing.assert_allclose(back.weights, graph.weights, rtol=2**-24)


def test_jraph_sees_the_same_padding():
    graph = GridGraph.create(8, (2, 4), node_multiple=16).graph
    nodes = np.arange(2.0 * graph.num_padded_nodes).reshape(-1, 2)
    graphs = graph.to_graphs_tuple(nodes)
    assert graphs.nodes is nodes
    np.testing.assert_array_equal(jraph.get_node_padding_mask(graphs), graph.node_mask)
    np.testing.assert_array_equal(jraph.get_edge_padding_mask(graphs), graph.edge_mask)
    np.testing.assert_array_equal(jraph.get_graph_padding_mask(graphs), [True, False])


def test_a_batch_of_jraph_graphs_becomes_their_union(rng):
    graphs = [random_graph(rng, num_nodes=n, num_edges=2 * n) for n in (4, 6, 3)]
    batch = jraph.pad_with_graphs(
        jraph.batch_np([graph.to_graphs_tuple() for graph in graphs]),
        n_node=16,
        n_edge=40,
        n_graph=5,
    )
    union = Graph.from_graphs_tuple(batch, num_padding_graphs=2)
    expected = np.zeros((16, 16))
    start = 0
    for graph in graphs:
        block = slice(start, start + graph.num_nodes)
        expected[block, block] = graph.adjacency()
        start += graph.num_nodes
    assert (union.num_nodes, union.num_edges, union.num_padded_nodes) == (13, 26, 16)
    np.testing.assert_allclose(union.adjacency(), expected, rtol=2**-24)


def test_jraph_edges_without_features_weigh_one():
    graphs = jraph.GraphsTuple(
        nodes=None,
        edges=None,
        senders=np.array([0, 1]),
        receivers=np.array([1, 2]),
        n_node=np.array([3]),
        n_edge=np.array([2]),
        globals=None,
    )
    assert Graph.from_graphs_tuple(graphs).weights.tolist() == [1, 1]
