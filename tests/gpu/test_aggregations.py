"""Every aggregation on a GPU is the product with the adjacency matrix, both ways."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from on_device import Results, lower_on, made_for, selected

from dig_jax.graphs import GridGraph, node_factors
from dig_jax.ops.aggregation import AGGREGATIONS, create_aggregate

pytestmark = pytest.mark.gpu

# DiG-parallel's and DiG-mix's graphs of CIFAR-10, and one with everything else: a
# rectangle, three scales, 8 neighbours, two hubs, padding.
FINEST = GridGraph.create(32, (2, 4), num_hubs=1, across=False)
GRAPHS = {
    "parallel": FINEST.at_scale(0),
    "parallel, coarse": FINEST.at_scale(1),
    "mix": GridGraph.create(32, (2, 4), num_hubs=1),
    "padded": GridGraph.create(
        (8, 12), (1, 2, 4), num_hubs=2, neighbors=8, node_multiple=64
    ),
}
NORMALIZATIONS = {"parallel": ("mean", "symmetric", "sum")}
DTYPES = ("float32", "bfloat16")
CASES = [
    (graph, normalization, name, dtype)
    for graph, name, dtype in itertools.product(GRAPHS, AGGREGATIONS, DTYPES)
    for normalization in NORMALIZATIONS.get(graph, ("mean",))
]
WIDTH, IMAGES = 8, 3


def labelled(case):
    return ", ".join(case)


def rows_of(case):
    """Features and a cotangent that bfloat16 holds exactly."""
    graph = GRAPHS[case[0]]
    rng = np.random.default_rng(0)
    shape = (2, IMAGES * graph.num_padded_nodes, WIDTH)
    return np.asarray(jnp.asarray(rng.normal(size=shape), jnp.bfloat16), np.float32)


@pytest.fixture(scope="module")
def results(device, request):
    def lower(text):
        case = next(case for case in CASES if labelled(case) == text)
        graph, normalization, name, dtype = case
        with made_for(device):
            aggregate = create_aggregate(name, GRAPHS[graph], normalization)

            def run(h, g):
                out, vjp = jax.vjp(aggregate, h)
                return out, vjp(g)[0]

            return lower_on(device, run, *jnp.asarray(rows_of(case), dtype))

    return Results(lower, selected(request, labelled))


def matrix_of(graph, normalization):
    """diag(after) (A + diag(own)) diag(before) in float64."""
    factors = node_factors(graph.graph, normalization)
    before, own, after = (np.asarray(f, np.float64) for f in factors)
    return after[:, None] * (graph.graph.adjacency() + np.diag(own)) * before


@pytest.mark.parametrize("case", CASES, ids=labelled)
def test_an_aggregation_is_a_product_with_the_adjacency_matrix(results, case):
    graph, normalization, _, dtype = case
    matrix = matrix_of(GRAPHS[graph], normalization)
    h, g = (np.float64(rows).reshape(IMAGES, -1, WIDTH) for rows in rows_of(case))
    found = [
        np.asarray(a, np.float64).reshape(h.shape) for a in results[labelled(case)]
    ]
    for actual, weights, rows in zip(found, (matrix, matrix.T), (h, g), strict=True):
        expected = np.einsum("vu,bud->bvd", weights, rows)
        sums = np.einsum("vu,bud->bvd", np.abs(weights), np.abs(rows))
        # Sums of up to 257 terms in float32, in any order; bfloat16 rounds to 2^-8, the
        # result and in the dense product the features times their factors.
        rounding = 2e-6 if dtype == "float32" else 2**-7
        assert np.all(np.abs(actual - expected) <= rounding * (sums + 1e-3))
