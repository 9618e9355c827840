"""The multiscale grid against brute force over pixels and the matrices of App. A."""

import itertools

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph

# (image size, patch sizes): one to three scales, uneven factors, rectangles, a single
# row of patches, a single patch.
SHAPES = [
    ((8, 8), (2,)),
    ((8, 12), (2, 4)),
    ((8, 8), (1, 2, 4)),
    ((12, 6), (1, 3)),
    ((4, 16), (1, 4)),
    ((16, 8), (2, 8)),
    ((6, 12), (1, 2, 6)),
    ((5, 5), (5,)),
]
shapes = pytest.mark.parametrize(("image_size", "patch_sizes"), SHAPES)


def pixels_of(graph):
    """Pixels that each patch node covers, [node, row, col]."""
    rows, cols = graph.image_size
    covered = np.zeros((graph.num_patches, rows, cols), bool)
    node = 0
    for s in graph.patch_sizes:
        for row, col in itertools.product(range(0, rows, s), range(0, cols, s)):
            covered[node, row : row + s, col : col + s] = True
            node += 1
    assert node == graph.num_patches
    return covered


def grow(mask, corners):
    """A mask of pixels and the pixels beside it."""
    padded = np.pad(mask, 1)
    rows, cols = mask.shape
    return np.any(
        [
            padded[1 + row : 1 + row + rows, 1 + col : 1 + col + cols]
            for row, col in itertools.product((-1, 0, 1), repeat=2)
            if corners or not (row and col)
        ],
        axis=0,
    )


def brute_force_adjacency(graph, neighbors, across):
    """Two patches of one size are joined if they touch, of two if one covers the other;
    hubs to every patch."""
    covered = pixels_of(graph)
    sizes = covered.sum((1, 2))
    n = graph.num_patches
    adjacency = np.zeros((graph.num_nodes, graph.num_nodes))
    for u, v in itertools.permutations(range(n), 2):
        if sizes[u] == sizes[v]:
            adjacency[u, v] = np.any(grow(covered[u], neighbors == 8) & covered[v])
        elif across:
            adjacency[u, v] = np.any(covered[u] & covered[v])
    adjacency[:n, n:] = adjacency[n:, :n] = 1
    return adjacency


@pytest.mark.parametrize("num_hubs", [0, 1, 2])
@pytest.mark.parametrize("neighbors", [4, 8])
@shapes
def test_edges_equal_brute_force_over_pixels(
    image_size, patch_sizes, neighbors, num_hubs
):
    for across in (False, True):
        graph = GridGraph.create(
            image_size,
            patch_sizes,
            neighbors=neighbors,
            num_hubs=num_hubs,
            across=across,
        )
        adjacency = graph.graph.adjacency()
        np.testing.assert_array_equal(
            adjacency, brute_force_adjacency(graph, neighbors, across)
        )
        np.testing.assert_array_equal(adjacency, adjacency.T)
        assert np.all(graph.graph.senders != graph.graph.receivers)


@shapes
def test_summary_counts_equal_brute_force(image_size, patch_sizes):
    graph = GridGraph.create(image_size, patch_sizes, node_multiple=8)
    summary = graph.summary()
    real = graph.num_nodes
    assert summary["num_nodes"] == pixels_of(graph).shape[0] + 2
    assert summary["num_padded_nodes"] == -(-real // 8) * 8 == graph.num_padded_nodes
    adjacency = brute_force_adjacency(graph, 4, True)
    assert summary["num_edges"] == adjacency.sum() == sum(summary["edges"].values())
    assert summary["edges"]["hubs"] == adjacency[graph.hubs].sum() * 2
    for i, entry in enumerate(summary["scales"]):
        nodes = graph.scales[i].nodes
        assert entry["num_nodes"] == nodes.stop - nodes.start
        assert entry["num_nodes"] == entry["rows"] * entry["cols"]
        assert entry["num_edges"] == adjacency[nodes, nodes].sum()
        for j in range(i + 1, len(graph.scales)):
            key = f"across{graph.patch_sizes[i]}-{graph.patch_sizes[j]}"
            between = adjacency[nodes, graph.scales[j].nodes].sum()
            assert summary["edges"][key] == 2 * between


@pytest.mark.parametrize(
    ("neighbors", "corner", "border", "interior"), [(4, 2, 3, 4), (8, 3, 5, 8)]
)
def test_degrees_of_corner_border_and_interior(neighbors, corner, border, interior):
    graph = GridGraph.create((6, 10), (2,), neighbors=neighbors, num_hubs=2)
    degree = graph.graph.in_weight[: graph.num_patches].reshape(3, 5)
    expected = np.full((3, 5), border + 2)
    expected[1, 1:4] = interior + 2
    expected[::2, ::4] = corner + 2
    np.testing.assert_array_equal(degree, expected)
    assert graph.graph.in_weight[graph.hubs].tolist() == [15, 15]


def test_hub_edges_are_each_patch_with_each_hub_both_ways():
    graph = GridGraph.create(4, (2, 4), num_hubs=2)
    pairs = {tuple(edge) for edge in graph.edges_by_kind["hubs"].T.tolist()}
    expected = {(patch, hub) for patch in range(5) for hub in (5, 6)}
    assert pairs == expected | {(hub, patch) for patch, hub in expected}
    assert graph.edges_by_kind["hubs"].shape == (2, len(pairs))


@pytest.mark.parametrize("num_hubs", [0, 1, 2])
@pytest.mark.parametrize("neighbors", [4, 8])
@shapes
def test_graph_at_a_scale_is_c_a_ct(image_size, patch_sizes, neighbors, num_hubs):
    graph = GridGraph.create(
        image_size, patch_sizes, neighbors=neighbors, num_hubs=num_hubs
    )
    finest = graph.at_scale(0).graph.adjacency()
    np.testing.assert_array_equal(
        finest, brute_force_adjacency(graph.at_scale(0), neighbors, False)
    )
    for i in range(len(patch_sizes)):
        mask = graph.pooling_mask(i)
        np.testing.assert_array_equal(
            graph.at_scale(i).graph.adjacency(), mask @ finest @ mask.T
        )


@pytest.mark.parametrize("num_hubs", [0, 2])
@pytest.mark.parametrize("neighbors", [4, 8])
@shapes
def test_coarse_grids_are_the_grids_of_their_scale_alone(
    image_size, patch_sizes, neighbors, num_hubs
):
    graph = GridGraph.create(
        image_size,
        patch_sizes,
        neighbors=neighbors,
        num_hubs=num_hubs,
        coarse="grid",
        node_multiple=4,
    )
    for i, size in enumerate(patch_sizes):
        alone = GridGraph.create(
            image_size,
            (size,),
            neighbors=neighbors,
            num_hubs=num_hubs,
            node_multiple=4,
        )
        np.testing.assert_array_equal(
            graph.at_scale(i).graph.adjacency(), alone.graph.adjacency()
        )


@shapes
def test_pooling_mask_follows_the_pixels_and_keeps_hubs(image_size, patch_sizes):
    graph = GridGraph.create(image_size, patch_sizes, num_hubs=2)
    covered = pixels_of(graph).reshape(graph.num_patches, -1).astype(int)
    fine = graph.scales[0].nodes
    for i, scale in enumerate(graph.scales):
        mask = graph.pooling_mask(i)
        overlaps = covered[scale.nodes] @ covered[fine].T > 0
        np.testing.assert_array_equal(mask[:-2, :-2], overlaps)
        np.testing.assert_array_equal(mask[-2:, -2:], np.eye(2))
        assert not mask[:-2, -2:].any()
        assert not mask[-2:, :-2].any()
        factor = patch_sizes[i] // patch_sizes[0]
        assert mask.sum(1).tolist() == [factor**2] * scale.num_nodes + [1, 1]
        # C^T copies: each fine node has one parent.
        assert mask.sum(0).tolist() == [1] * mask.shape[1]


@pytest.mark.parametrize("node_multiple", [1, 8, 128])
def test_node_multiple_pads_every_graph_of_the_network(node_multiple):
    graph = GridGraph.create((8, 12), (2, 4), node_multiple=node_multiple)
    plain = GridGraph.create((8, 12), (2, 4))
    for padded, unpadded in (
        (graph, plain),
        (graph.at_scale(0), plain.at_scale(0)),
        (graph.at_scale(1), plain.at_scale(1)),
    ):
        assert padded.num_padded_nodes % node_multiple == 0
        assert padded.num_nodes == unpadded.num_nodes
        real = slice(padded.num_nodes)
        np.testing.assert_array_equal(
            padded.graph.adjacency()[real, real], unpadded.graph.adjacency()
        )


def test_a_single_side_means_a_square():
    assert GridGraph.create(8, (2,)) == GridGraph.create((8, 8), (2,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(patch_sizes=()), "at least one"),
        (dict(patch_sizes=(3,)), "divisible by 3, got 8x12.*fit: 1, 2, 4"),
        (dict(patch_sizes=(8,)), "divisible by 8"),
        (dict(patch_sizes=(0,)), "fit: 1, 2, 4"),
        (dict(patch_sizes=(-2,)), "fit: 1, 2, 4"),
        (dict(patch_sizes=(4, 2)), "ascending"),
        (dict(patch_sizes=(2, 2)), "ascending"),
        (dict(image_size=12, patch_sizes=(2, 3)), "3 is no multiple of 2"),
        (dict(image_size=0), "positive sides"),
        (dict(neighbors=6), "4 or 8, got 6"),
        (dict(num_hubs=3), "0, 1 or 2, got 3"),
        (dict(num_hubs=-1), "0, 1 or 2, got -1"),
        (dict(node_multiple=0), "at least 1, got 0"),
        (dict(coarse="mean"), "product or grid, got 'mean'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        GridGraph.create(**{"image_size": (8, 12), "patch_sizes": (2, 4), **options})


def test_graphs_tuple_of_a_grid_counts_its_nodes_and_edges():
    grid = GridGraph.create((8, 12), (2, 4), node_multiple=8)
    tuple_ = grid.to_graphs_tuple()
    assert tuple_.n_node[0] == grid.num_nodes
    assert tuple_.n_edge[0] == grid.graph.num_edges
    assert tuple_.n_node.sum() == grid.num_padded_nodes
