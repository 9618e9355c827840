"""Graphs with types of edges: a grid's, and any other's."""

import jraph
import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, RelationalGraph


def test_a_grids_relations_are_named_by_where_messages_come_from():
    grid = GridGraph.create(
        (4, 4), (2, 4), num_hubs=1, neighbors=4, hub_names=("register_0",)
    )
    relations = RelationalGraph.of_grid(grid)
    assert relations.names == (
        *(f"{name}2" for name in ("north", "west", "self", "east", "south")),
        *(f"{name}4" for name in ("north", "west", "self", "east", "south")),
        "up2_4",
        "down4_2",
        "from_register_0",
        "to_register_0",
        "self_register_0",
    )
    adjacency = dict(zip(relations.names, relations.adjacency(), strict=True))
    # Patches 0 1 / 2 3, the coarse one 4, the register 5: [receiver, sender].
    assert np.argwhere(adjacency["north2"]).tolist() == [[2, 0], [3, 1]]
    assert np.argwhere(adjacency["east2"]).tolist() == [[0, 1], [2, 3]]
    assert adjacency["up2_4"][4].tolist() == [0.25] * 4 + [0, 0]
    assert np.argwhere(adjacency["down4_2"]).tolist() == [[i, 4] for i in range(4)]
    assert adjacency["to_register_0"][5].tolist() == [0.2] * 5 + [0]
    assert not adjacency["north4"].any()


def test_a_graphs_tuple_with_types_comes_back_as_it_was():
    grid = GridGraph.create((8, 4), (2,), num_hubs=0, neighbors=8, node_multiple=16)
    relations = RelationalGraph.of_grid(grid)
    back = RelationalGraph.from_graphs_tuple(
        relations.to_graphs_tuple(), relations.names, num_padding_graphs=1
    )
    np.testing.assert_array_equal(back.adjacency(), relations.adjacency())


def tuple_of(edges):
    return jraph.GraphsTuple(
        nodes=None,
        edges=edges,
        senders=np.array([0, 1, 2]),
        receivers=np.array([1, 1, 0]),
        n_node=np.array([3]),
        n_edge=np.array([3]),
        globals=None,
    )


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (None, "must say their relations"),
        (np.array([0, 2, 1]), r"from 0 to 1 \(knows, likes\), got 2"),
        (np.array([[0], [-1], [1]]), "got -1"),
        (np.array([0.5, 0, 1]), r"got 0\.5"),
        (np.zeros((3, 2)), r"one relation, got an array of shape \(3, 2\)"),
    ],
)
def test_types_that_are_none_are_refused(edges, said):
    with pytest.raises(InputError, match=said):
        RelationalGraph.from_graphs_tuple(tuple_of(edges), ("knows", "likes"))


def test_what_a_relation_brings_is_the_mean_over_its_edges():
    graph = Graph.create(np.array([0, 2, 0]), np.array([1, 1, 1]), num_nodes=3)
    relations = RelationalGraph.create(graph, np.array([0, 0, 1]), ("a", "b"))
    assert relations.weights.tolist() == [0.5, 0.5, 1]
