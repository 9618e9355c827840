"""Sums over relations are products with their adjacencies, however computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, RelationalGraph
from dig_jax.ops.relations import create_relational_sum

GRIDS = {
    "one scale": GridGraph.create((6, 8), (2,), num_hubs=0, neighbors=8),
    "scales and hubs": GridGraph.create((8, 4), (1, 2, 4), num_hubs=2),
    "padded": GridGraph.create((8, 8), (2, 4), num_hubs=1, node_multiple=32),
    "one patch": GridGraph.create(4, (4,), num_hubs=1, neighbors=8),
}


def any_graph(rng):
    senders, receivers = rng.integers(0, 7, (2, 30))
    graph = Graph.create(senders, receivers, num_nodes=7)
    return RelationalGraph.create(graph, rng.integers(0, 3, 30), ("a", "b", "c"))


def problem(relations, rng, of_images):
    nodes = relations.graph.num_padded_nodes
    h = rng.normal(size=(2 * nodes, 5)).astype(np.float32)
    shape = (relations.num_relations, 5)
    w = rng.normal(size=(2, *shape) if of_images else shape).astype(np.float32)
    return h, w, rng.normal(size=h.shape).astype(np.float32)


def value_and_gradient(total, h, w, g):
    out, vjp = jax.vjp(total, h, w)
    return out, *vjp(g)


def check(name, relations, grid, rng, of_images):
    h, w, g = problem(relations, rng, of_images)
    per_image, adjacency = h.reshape(2, -1, 5).astype(float), relations.adjacency()
    every = np.broadcast_to(w.astype(float), (2, *w.shape[-2:]))
    expected = np.einsum("rvu,brc,buc->bvc", adjacency, every, per_image)
    cotangent = g.reshape(expected.shape).astype(float)
    to_h = np.einsum("rvu,brc,bvc->buc", adjacency, every, cotangent)
    to_w = np.einsum("rvu,buc,bvc->brc", adjacency, per_image, cotangent)
    total = create_relational_sum(name, relations, grid)
    found_all = jax.jit(partial(value_and_gradient, total))(h, w, g)
    wanted = expected, to_h, to_w if of_images else to_w.sum(0)
    for found, exact in zip(found_all, wanted, strict=True):
        # Sums of at most some 50 terms in float32.
        np.testing.assert_allclose(
            found, exact.reshape(found.shape), atol=2e-6 * max(np.abs(exact).max(), 1)
        )


@pytest.mark.parametrize("case", GRIDS)
@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("segment", "cpu"),
        ("dense", "cpu"),
        *(("stencil", platform) for platform in ("cpu", "gpu", "tpu")),
    ],
)
@pytest.mark.parametrize("of_images", [False, True])
def test_a_grids_sums_are_products_with_its_adjacencies(
    case, name, platform, of_images, rng
):
    grid = GRIDS[case]
    with compiling_for(platform):
        check(name, RelationalGraph.of_grid(grid), grid, rng, of_images)


@pytest.mark.parametrize("name", ["segment", "dense", "auto"])
def test_so_are_any_graphs(name, rng):
    check(name, any_graph(rng), None, rng, of_images=False)


def test_bfloat16_features_are_summed_in_float32(rng):
    grid = GRIDS["scales and hubs"]
    relations = RelationalGraph.of_grid(grid)
    h, w, _ = problem(relations, rng, False)
    h, w = jnp.asarray(h), jnp.asarray(w)
    exact = jax.jit(create_relational_sum("stencil", relations, grid))(h, w)
    for name in ("segment", "dense", "stencil"):
        total = jax.jit(create_relational_sum(name, relations, grid))
        low = total(jnp.asarray(h, jnp.bfloat16), w)
        assert low.dtype == jnp.bfloat16
        # Terms and result are rounded to 2^-9 of their size, of at most some 10.
        np.testing.assert_allclose(low.astype(float), exact, atol=0.1)


def test_no_way_scatters_on_a_grid():
    grid = GRIDS["scales and hubs"]
    relations = RelationalGraph.of_grid(grid)
    h = jnp.zeros((grid.num_padded_nodes, 4))
    w = jnp.zeros((relations.num_relations, 4))
    for name in ("stencil", "dense"):
        total = create_relational_sum(name, relations, grid)
        gradient = jax.jit(partial(value_and_gradient, total))
        text = gradient.lower(h, w, h).as_text()
        assert "scatter" not in text


@pytest.mark.parametrize(
    ("name", "said"),
    [("stencil", "needs the relations of a GridGraph"), ("sum", "'sum'")],
)
def test_what_cannot_be_is_refused(name, said, rng):
    with pytest.raises(InputError, match=said):
        create_relational_sum(name, any_graph(rng))
