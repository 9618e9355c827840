"""Every aggregation is a product with the normalized adjacency matrix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph
from dig_jax.graphs.normalization import NORMALIZATIONS
from dig_jax.ops.aggregation import AGGREGATIONS, choose_aggregation, create_aggregate

# Sums of at most some 200 terms in float32: errors stay within a few roundings (6e-8)
# of the largest term, about 4 here, times the largest sum of the weights.
ROUNDING = 2e-6

# Rectangles, one to three scales, 4 and 8 neighbours, 0 to 2 hubs, padding; each graph
# also at its coarsest scale, where edges have weights and self-loops.
GRAPHS = {
    "one scale": GridGraph.create((8, 12), (2,), num_hubs=1),
    "no hub": GridGraph.create((6, 4), (1, 2), num_hubs=0, neighbors=8),
    "two scales": GridGraph.create((8, 8), (2, 4), num_hubs=2),
    "apart": GridGraph.create((8, 16), (1, 4), across=False, neighbors=8),
    "three scales": GridGraph.create((8, 12), (1, 2, 4), neighbors=8),
    "padded": GridGraph.create((12, 6), (1, 3, 6), num_hubs=1, node_multiple=64),
    "one patch": GridGraph.create(4, (4,), num_hubs=0),
}
CASES = {
    **GRAPHS,
    **{
        f"{name}, coarse": graph.at_scale(len(graph.scales) - 1)
        for name, graph in GRAPHS.items()
        if len(graph.scales) > 1
    },
}
# The stencil is computed in other ways where there is no CPU.
aggregations = pytest.mark.parametrize(
    ("name", "platform"),
    [
        *((name, "cpu") for name in AGGREGATIONS),
        ("stencil", "tpu"),
        ("stencil", "gpu"),
    ],
)


def mean_matrix(adjacency):
    sums = adjacency.sum(1, keepdims=True)
    return np.divide(adjacency, sums, out=np.zeros_like(adjacency), where=sums > 0)


def symmetric_matrix(adjacency, num_nodes):
    """D^-1/2 (A + I) D^-1/2 on the real nodes, with the self-loops that there are."""
    loops = np.diag(adjacency) == 0
    loops[num_nodes:] = False
    looped = adjacency + np.diag(loops)
    sums = looped.sum(1)
    root = np.divide(1, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0)
    return root[:, None] * looped * root


def normalized(graph: Graph, normalization: str = "mean") -> np.ndarray:
    adjacency = graph.adjacency()
    if normalization == "symmetric":
        return symmetric_matrix(adjacency, graph.num_nodes)
    return mean_matrix(adjacency) if normalization == "mean" else adjacency


def per_image(matrix, rows):
    """A matrix over nodes, applied to each image of [batch * node, width]."""
    h = np.asarray(rows, np.float64).reshape(-1, len(matrix), rows.shape[-1])
    return np.einsum("vu,bud->bvd", matrix, h).reshape(rows.shape)


def create_for(platform, name, graph, normalization="mean"):
    with compiling_for(platform):
        return create_aggregate(name, graph, normalization)


def random_rows(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


# The mean on every graph, the others on those where they may differ in kind: with and
# without hubs, edges across scales, padding, weights and self-loops, edges.
NORMALIZED = [
    *((case, "mean") for case in CASES),
    *itertools.product(
        ("no hub", "one patch", "padded", "three scales", "padded, coarse"),
        ("sum", "symmetric"),
    ),
]


@aggregations
@pytest.mark.parametrize(("case", "normalization"), NORMALIZED)
def test_every_aggregation_equals_the_dense_adjacency(
    rng, case, normalization, name, platform
):
    graph = CASES[case]
    aggregate = create_for(platform, name, graph, normalization)
    matrix = normalized(graph.graph, normalization)
    h, g = random_rows(rng, 2, 2 * graph.num_padded_nodes, 3)

    @jax.jit
    def out_and_derivatives(h, g):
        out, vjp = jax.vjp(aggregate, h)
        return out, vjp(g)[0], jax.jvp(aggregate, (h,), (g,))[1]

    out, cotangent, tangent = out_and_derivatives(h, g)
    tolerance = ROUNDING * max(1, matrix.sum(0).max(), matrix.sum(1).max())
    np.testing.assert_allclose(out, per_image(matrix, h), atol=tolerance)
    np.testing.assert_allclose(cotangent, per_image(matrix.T, g), atol=tolerance)
    np.testing.assert_allclose(tangent, per_image(matrix, g), atol=tolerance)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@aggregations
def test_sums_are_float32_for_bfloat16_features(name, platform, normalization):
    """In bfloat16 a sum of ones stops at 256; a hub here has 1024 neighbours."""
    graph = GridGraph.create(32, (1,), num_hubs=1)
    h = jnp.ones((graph.num_padded_nodes, 1), jnp.bfloat16)
    out = jax.jit(create_for(platform, name, graph, normalization))(h)
    assert out.dtype == jnp.bfloat16
    expected = normalized(graph.graph, normalization).sum(1, keepdims=True)
    # The result is rounded once (2^-9), symmetric factors of features once more.
    rounding = 2**-8 if normalization == "symmetric" else 0
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=rounding)


@aggregations
def test_padding_reaches_no_node(rng, name, platform):
    graph = CASES["padded"]
    h = random_rows(rng, graph.num_padded_nodes, 2)
    changed = h.at[graph.num_nodes :].set(1e6)
    aggregate = jax.jit(create_for(platform, name, graph))
    real = slice(graph.num_nodes)
    np.testing.assert_array_equal(aggregate(h)[real], aggregate(changed)[real])


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_any_graph_can_be_aggregated_on(rng, normalization, multiple):
    """Directed, weighted, with self-loops, double edges and nodes that hear nothing."""
    senders, receivers = rng.integers(0, 21, (2, 40))
    weights = rng.uniform(0.5, 2, 40)
    graph = Graph.create(senders, receivers, weights, num_nodes=21).padded(multiple)
    graph = Graph.from_graphs_tuple(
        graph.to_graphs_tuple(), num_padding_graphs=int(multiple > 1)
    )
    h = random_rows(rng, 3 * graph.num_padded_nodes, 4)
    expected = per_image(normalized(graph, normalization), h)
    assert np.any(graph.self_weight > 0)
    assert np.any(graph.in_weight[:21] == 0)
    for name in ("auto", "segment", "dense"):
        out = jax.jit(create_aggregate(name, graph, normalization))(h)
        np.testing.assert_allclose(out, expected, atol=10 * ROUNDING)


def test_a_stencil_without_a_grid_is_refused():
    graph = Graph.create(np.array([0]), np.array([1]), num_nodes=2)
    with pytest.raises(InputError, match=r"needs a GridGraph.*auto, dense, segment"):
        create_aggregate("stencil", graph)


@pytest.mark.parametrize("case", ["three scales", "three scales, coarse"])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["dense", "stencil"])
def test_dense_and_stencil_compile_to_no_scatter(case, name, platform):
    """Scatters add in any order on GPUs; without one a program is deterministic."""
    assert count_scatters(CASES[case], name, platform) == 0


def test_scatters_are_found_where_there_are_some():
    assert count_scatters(CASES["three scales"], "segment") > 0


def count_scatters(graph, name, platform="cpu"):
    aggregate = create_for(platform, name, graph)
    h = jax.ShapeDtypeStruct((2 * graph.num_padded_nodes, 4), jnp.float32)

    def forward_and_backward(h, g):
        mean, vjp = jax.vjp(aggregate, h)
        return mean, vjp(g)

    # What jax hands to the compiler: CPU's own passes turn scatters into loops.
    return jax.jit(forward_and_backward).lower(h, h).as_text().count("scatter")


def test_auto_resolves_to_an_aggregation_for_every_platform():
    grids = [GridGraph.create(size, (2,)) for size in (4, 64, 160)]
    grids += [GridGraph.create(size, (2, 4)) for size in (4, 64, 160)]
    for platform in ("cpu", "gpu", "tpu", "another"):
        for grid in grids:
            assert choose_aggregation(platform, grid) in AGGREGATIONS
            assert choose_aggregation(platform, grid.graph) in ("segment", "dense")
    graph = CASES["two scales"]
    h = jnp.ones((graph.num_padded_nodes, 2))
    mean = jax.jit(create_aggregate("auto", graph))(h)
    np.testing.assert_allclose(mean, 1, rtol=1e-6)


def test_unknown_aggregation_is_refused():
    with pytest.raises(InputError, match=r"'sparse'.*auto, dense, segment, stencil"):
        create_aggregate("sparse", CASES["two scales"])


def test_unknown_normalization_is_refused():
    with pytest.raises(InputError, match=r"'max'.*mean, sum, symmetric"):
        create_aggregate("dense", CASES["two scales"], "max")
