"""What a node receives, against the dense adjacency."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph
from dig_jax.graphs.received import (
    in_words,
    received_by_kind,
    received_by_relation,
    received_by_scale,
)
from dig_jax.graphs.relations import RelationalGraph


def dense_weights(adjacency, normalization):
    """Rows of A / sums, D^-1/2 (A + I) D^-1/2 or A, in plain NumPy."""
    if normalization == "mean":
        return adjacency / adjacency.sum(axis=1, keepdims=True)
    if normalization == "sum":
        return adjacency
    own = np.diag((np.diag(adjacency) == 0).astype(float))
    root = 1 / np.sqrt((adjacency + own).sum(axis=1))
    return root[:, None] * (adjacency + own) * root


def as_row(groups, length):
    row = np.zeros(length)
    for group in groups:
        np.add.at(row, group.senders, group.weights)
    return row


@pytest.mark.parametrize("normalization", ["mean", "sum", "symmetric"])
def test_at_each_scale_a_patch_receives_what_the_pooled_adjacency_says(normalization):
    grid = GridGraph.create(8, (2, 4), across=False)
    finest = grid.at_scale(0).graph.adjacency()
    for node in (0, 5, 15, grid.hubs.start):
        groups = received_by_scale(grid, node, normalization)
        for i, group in enumerate(groups):
            mask = grid.pooling_mask(i)
            expected = dense_weights(mask @ finest @ mask.T, normalization)
            fine = node if node < 16 else 16 + node - grid.hubs.start
            receiver = int(np.flatnonzero(mask[:, fine])[0])
            found = as_row([group], grid.num_nodes)
            own = [*range(grid.num_nodes)[grid.scales[i].nodes], *range(20, 22)]
            np.testing.assert_allclose(found[own], expected[receiver], atol=1e-12)
            assert group.receiver == own[receiver]
            assert np.count_nonzero(found) == np.count_nonzero(expected[receiver])


@pytest.mark.parametrize("normalization", ["mean", "sum", "symmetric"])
def test_on_one_graph_the_kinds_together_are_the_row_of_a_node(normalization):
    grid = GridGraph.create(8, (2, 4), node_multiple=8)
    expected = dense_weights(
        grid.graph.adjacency()[: grid.num_nodes, : grid.num_nodes], normalization
    )
    for node in range(grid.num_nodes):
        groups = received_by_kind(grid, node, normalization)
        found = as_row(groups, grid.num_nodes)
        np.testing.assert_allclose(found, expected[node], atol=1e-12)


def test_by_relation_each_is_a_mean_over_its_edges():
    grid = GridGraph.create(8, (2, 4), coarse="grid")
    relations = RelationalGraph.of_grid(grid)
    dense = relations.adjacency()
    for node in (0, 7, 17, grid.num_nodes - 1):
        groups = received_by_relation(grid, node)
        assert len(groups) == np.count_nonzero(dense[:, node].sum(axis=1))
        for group in groups:
            index = [in_words(name) for name in relations.names].index(group.name)
            found = as_row([group], grid.num_padded_nodes)
            np.testing.assert_allclose(found, dense[index, node], atol=1e-12)
            assert np.isclose(group.weights.sum(), 1)


def test_relations_are_named_in_words():
    names = ("north_west2", "down16_4", "from_time")
    expected = ["north west, 2 pixels", "down, 16 to 4 pixels", "from time"]
    assert [in_words(name) for name in names] == expected


def test_a_node_that_is_not_there_is_named():
    grid = GridGraph.create(8, (2, 4), across=False)
    with pytest.raises(InputError, match="0 to 15"):
        received_by_scale(grid, 17, "mean")
    with pytest.raises(InputError, match="0 to 21"):
        received_by_kind(grid, 22, "mean")
