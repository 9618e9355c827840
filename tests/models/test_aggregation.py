"""Every aggregation is a product with the normalized adjacency matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph
from dig_jax.models.aggregation import (
    AGGREGATIONS,
    choose_aggregation,
    create_aggregate,
    segment_mean,
)

# Sums of at most some 200 terms in float32, divided by their number: errors stay within
# a few roundings (6e-8) of the largest term, about 4 here.
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
cases = pytest.mark.parametrize("graph", CASES.values(), ids=CASES)
aggregations = pytest.mark.parametrize("name", AGGREGATIONS)


def normalized(graph: Graph) -> np.ndarray:
    adjacency = graph.adjacency()
    sums = adjacency.sum(1, keepdims=True)
    return np.divide(adjacency, sums, out=np.zeros_like(adjacency), where=sums > 0)


def per_image(matrix, rows):
    """A matrix over nodes, applied to each image of [batch * node, width]."""
    h = np.asarray(rows, np.float64).reshape(-1, len(matrix), rows.shape[-1])
    return np.einsum("vu,bud->bvd", matrix, h).reshape(rows.shape)


def random_rows(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@aggregations
@cases
def test_every_aggregation_equals_the_dense_adjacency(rng, graph, name):
    aggregate = create_aggregate(name, graph)
    matrix = normalized(graph.graph)
    h, g = random_rows(rng, 2, 2 * graph.num_padded_nodes, 3)

    @jax.jit
    def mean_and_derivatives(h, g):
        mean, vjp = jax.vjp(aggregate, h)
        return mean, vjp(g)[0], jax.jvp(aggregate, (h,), (g,))[1]

    mean, cotangent, tangent = mean_and_derivatives(h, g)
    np.testing.assert_allclose(mean, per_image(matrix, h), atol=ROUNDING)
    np.testing.assert_allclose(cotangent, per_image(matrix.T, g), atol=ROUNDING)
    np.testing.assert_allclose(tangent, per_image(matrix, g), atol=ROUNDING)


@aggregations
def test_sums_are_float32_for_bfloat16_features(name):
    """In bfloat16 a sum of ones stops at 256; a hub here has 1024 neighbours."""
    graph = GridGraph.create(32, (1,), num_hubs=1)
    h = jnp.ones((graph.num_padded_nodes, 1), jnp.bfloat16)
    mean = jax.jit(create_aggregate(name, graph))(h)
    assert mean.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(mean, np.float32), 1)


@aggregations
def test_padding_reaches_no_node(rng, name):
    graph = CASES["padded"]
    h = random_rows(rng, graph.num_padded_nodes, 2)
    changed = h.at[graph.num_nodes :].set(1e6)
    aggregate = jax.jit(create_aggregate(name, graph))
    real = slice(graph.num_nodes)
    np.testing.assert_array_equal(aggregate(h)[real], aggregate(changed)[real])


@pytest.mark.parametrize("multiple", [1, 8])
def test_segment_takes_any_graph(rng, multiple):
    """Directed, weighted, with self-loops, double edges and nodes that hear nothing."""
    senders, receivers = rng.integers(0, 21, (2, 40))
    weights = rng.uniform(0.5, 2, 40)
    graph = Graph.create(senders, receivers, weights, num_nodes=21).padded(multiple)
    graph = Graph.from_graphs_tuple(
        graph.to_graphs_tuple(), num_padding_graphs=int(multiple > 1)
    )
    h = random_rows(rng, 3 * graph.num_padded_nodes, 4)
    expected = per_image(normalized(graph), h)
    assert np.any(np.all(expected == 0, axis=1))
    np.testing.assert_allclose(segment_mean(graph)(h), expected, atol=ROUNDING)


@pytest.mark.parametrize("case", ["three scales", "three scales, coarse"])
@pytest.mark.parametrize("name", ["dense", "stencil"])
def test_dense_and_stencil_compile_to_no_scatter(case, name):
    """Scatters add in any order on GPUs; without one a program is deterministic."""
    assert count_scatters(CASES[case], name) == 0


def test_scatters_are_found_where_there_are_some():
    assert count_scatters(CASES["three scales"], "segment") > 0


def count_scatters(graph, name):
    aggregate = create_aggregate(name, graph)
    h = jax.ShapeDtypeStruct((2 * graph.num_padded_nodes, 4), jnp.float32)

    def forward_and_backward(h, g):
        mean, vjp = jax.vjp(aggregate, h)
        return mean, vjp(g)

    # What jax hands to the compiler: CPU's own passes turn scatters into loops.
    return jax.jit(forward_and_backward).lower(h, h).as_text().count("scatter")


def test_auto_resolves_to_an_aggregation_for_every_platform():
    for platform in ("cpu", "gpu", "tpu"):
        for num_nodes in (10, 1024, 1025, 5000):
            assert choose_aggregation(platform, num_nodes) in AGGREGATIONS
    graph = CASES["two scales"]
    h = jnp.ones((graph.num_padded_nodes, 2))
    np.testing.assert_allclose(create_aggregate("auto", graph)(h), 1, rtol=1e-6)


def test_unknown_aggregation_is_refused():
    with pytest.raises(InputError, match=r"'sparse'.*auto, dense, segment, stencil"):
        create_aggregate("sparse", CASES["two scales"])
