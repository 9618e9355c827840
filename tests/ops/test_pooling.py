"""Pooling and copying back are products with the mask C, however computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.graphs import GridGraph
from dig_jax.models.dig import create_dig_parallel
from dig_jax.ops.pooling import pool, unpool

GRAPHS = {
    "hubs": GridGraph.create((8, 12), (2, 4), num_hubs=2, across=False),
    "no hub, padded": GridGraph.create(
        (12, 6), (1, 3, 6), num_hubs=0, across=False, node_multiple=16
    ),
}
# Relative to the largest result, about 8 (sums of up to 36 terms): float32 sums, and
# operands rounded to bfloat16 once (2^-9 each).
TOLERANCE = {"float32": 2e-6, "mixed": 2**-7}
platforms = pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])


def padded(matrix, rows, cols):
    return np.pad(matrix, ((0, rows - len(matrix)), (0, cols - matrix.shape[1])))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", GRAPHS)
@platforms
def test_pooling_is_a_product_with_the_mask(rng, platform, name, dtype):
    graph = GRAPHS[name]
    index = len(graph.scales) - 1
    fine = graph.at_scale(0).num_padded_nodes
    coarse = graph.at_scale(index).num_padded_nodes
    mask = graph.pooling_mask(index)
    copy = padded(mask, coarse, fine).T
    mean = padded(mask / mask.sum(1, keepdims=True), coarse, fine)
    for function, matrix in ((pool, mean), (unpool, copy)):
        h, dh = rng.normal(size=(2, 3, matrix.shape[1], 5))
        g = rng.normal(size=(3, matrix.shape[0], 5))

        def of_images(h, function=function):
            rows = h.reshape(-1, 5)
            return function(rows, graph, index, dtype).reshape(3, -1, 5)

        with compiling_for(platform):
            out, vjp = jax.vjp(of_images, jnp.float32(h))
            (cotangent,) = vjp(jnp.float32(g))
            _, tangent = jax.jvp(of_images, (jnp.float32(h),), (jnp.float32(dh),))
        atol = 8 * TOLERANCE[dtype]
        np.testing.assert_allclose(out, matrix @ h, atol=atol)
        np.testing.assert_allclose(tangent, matrix @ dh, atol=atol)
        np.testing.assert_allclose(cotangent, matrix.T @ g, atol=atol)


@pytest.mark.parametrize("function", [pool, unpool])
def test_a_gpu_pools_without_a_scatter(function):
    """Its copies are gathers: what JAX derives of one is a scatter."""
    graph, index = GRAPHS["hubs"], 1
    sizes = [graph.at_scale(i).num_padded_nodes for i in (0, index)]
    size, out = sizes if function is pool else sizes[::-1]
    h, g = jnp.ones((size, 5)), jnp.ones((out, 5))

    def both_ways(h, g):
        out, vjp = jax.vjp(lambda h: function(h, graph, index), h)
        return out, vjp(g)

    with compiling_for("gpu"):
        text = jax.jit(both_ways).lower(h, g).as_text()
    assert "gather" in text
    assert "scatter" not in text


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_a_network_for_another_platform_predicts_the_same(
    rng, platform, without_optimizations
):
    """What is traced for a TPU or GPU, run here: other sums, other roundings."""
    backbone = create_dig_parallel(
        image_shape=(8, 8, 3), width=16, depth=2, patch_sizes=(2, 4), dtype="mixed"
    )
    params = jax.jit(backbone.init)(jax.random.key(0))
    x, t = jnp.float32(rng.normal(size=(2, 8, 8, 3))), jnp.array([0.2, 0.9])

    def loss(params):
        return jnp.mean(jnp.square(backbone.apply(params, x, t, None) - x))

    here = jax.jit(jax.value_and_grad(loss))(params)
    with compiling_for(platform):
        there = jax.jit(jax.value_and_grad(lambda p: loss(p)))(params)
    np.testing.assert_allclose(there[0], here[0], rtol=2**-8)
    for a, b in zip(jax.tree.leaves(here[1]), jax.tree.leaves(there[1]), strict=True):
        # Roundings of bfloat16 (2^-9), several deep, relative to a leaf's largest.
        np.testing.assert_allclose(a, b, atol=2**-5 * float(jnp.max(jnp.abs(a))))
