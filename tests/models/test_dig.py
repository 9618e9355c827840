"""DiG against an independent implementation, and what must not change its result."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph
from dig_jax.models.dig import pool, unpool
from dig_jax.ops.aggregation import AGGREGATIONS

sys.path.insert(0, str(Path(__file__).parent))
from dig_cases import (
    CASES,
    KINDS,
    assert_close,
    backbone_of,
    in_numpy,
    output_and_gradient,
    problem,
)

kinds = pytest.mark.parametrize("kind", KINDS)
cases = pytest.mark.parametrize("case", CASES)


@pytest.mark.parametrize(
    ("case", "aggregation"),
    [
        ("one scale", "stencil"),
        ("three scales", "stencil"),
        *(("two scales", name) for name in AGGREGATIONS),
    ],
)
@kinds
def test_prediction_equals_the_paper_in_numpy(kind, case, aggregation):
    params, *_ = problem(kind, case)
    output, _ = output_and_gradient(kind, case, aggregation=aggregation)
    assert_close(output, in_numpy(kind, case, params)[0])


@kinds
def test_gradient_is_the_same_for_every_aggregation(kind):
    gradients = [
        output_and_gradient(kind, "two scales", aggregation=name)[1]
        for name in AGGREGATIONS
    ]
    for gradient in gradients[1:]:
        assert_close(gradient, gradients[0])


@cases
@kinds
def test_gradient_equals_finite_differences_in_numpy(kind, case, rng):
    params, *_, cotangent = problem(kind, case)
    _, gradient = output_and_gradient(kind, case, aggregation="stencil")
    for _ in range(2):
        # Each leaf weighs the same, however small its gradient.
        direction = jax.tree.map(
            lambda g: rng.normal(size=g.shape) / np.linalg.norm(g), gradient
        )
        expected = (
            along(kind, case, params, direction, 1e-6, cotangent)
            - along(kind, case, params, direction, -1e-6, cotangent)
        ) / 2e-6
        actual = sum(
            jax.tree.leaves(
                jax.tree.map(
                    lambda g, d: np.vdot(np.float64(g), d), gradient, direction
                )
            )
        )
        # Each leaf adds a standard normal number, wrong by at most ROUNDING or so.
        assert abs(actual - expected) < 1e-3


def along(kind, case, params, direction, step, cotangent):
    moved = jax.tree.map(lambda p, d: np.float64(p) + step * d, params, direction)
    return np.vdot(in_numpy(kind, case, moved)[0], np.float64(cotangent))


@pytest.mark.parametrize("case", ["two scales", "three scales"])
@kinds
def test_what_a_gpu_is_given_is_the_same_network(kind, case):
    """Run here: prediction as in NumPy, gradient as on a CPU, which is tested above."""
    params, *_ = problem(kind, case)
    _, expected = output_and_gradient(kind, case, aggregation="stencil")
    with compiling_for("gpu"):
        output, gradient = output_and_gradient(kind, case, aggregation="auto")
    assert_close(output, in_numpy(kind, case, params)[0])
    assert_close(gradient, expected)


@kinds
def test_features_are_the_patch_nodes_after_each_block(kind):
    case = "two scales"
    params, x, t, label, _ = problem(kind, case)
    backbone = backbone_of(kind, case)
    features = jax.jit(backbone.features)(params, x, t, label)
    # The last of them is what the head of the reference reads.
    assert_close(features, in_numpy(kind, case, params)[1])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dig_parallel", dict(unroll=0)),
        ("dig_parallel", dict(remat=True)),
        ("dig_mix", dict(remat=True, unroll=0)),
    ],
    ids=str,
)
def test_how_blocks_are_run_changes_nothing(kind, options):
    expected = output_and_gradient(kind, "one scale", aggregation="stencil")
    actual = output_and_gradient(kind, "one scale", aggregation="stencil", **options)
    assert_close(actual, expected)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("dig_parallel", "mixed"), ("dig_mix", "bfloat16")]
)
def test_low_precision_stays_close_to_float32(kind, dtype):
    expected, exact = output_and_gradient(kind, "one scale", aggregation="stencil")
    output, gradient = output_and_gradient(
        kind, "one scale", aggregation="stencil", dtype=dtype
    )
    assert output.dtype == jnp.float32
    # Operands are rounded to 2^-9; over some 30 products in a row that is
    # sqrt(30) * 2^-9 = 1% in size, and three times that in the worst of 400 values.
    assert_close(output, expected, 0.05)
    assert np.abs(output - expected).max() > 1e-4
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    flat, exact = (
        np.concatenate([np.ravel(g) for g in jax.tree.leaves(tree)])
        for tree in (gradient, exact)
    )
    assert np.linalg.norm(flat - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@kinds
def test_parameters_are_float32_in_one_tree_for_all_options(kind, dtype):
    def shapes(**options):
        backbone = backbone_of(kind, "two scales", **options)
        return jax.eval_shape(backbone.init, jax.random.key(0))

    tree = shapes(dtype=dtype, unroll=0, remat=True, node_multiple=8)
    assert tree == shapes()
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("image_size", "patch_sizes"), [((8, 12), (2, 4)), ((12, 6), (1, 3, 6))]
)
def test_pooling_is_the_normalized_mask_and_unpooling_copies(
    rng, image_size, patch_sizes
):
    graph = GridGraph.create(image_size, patch_sizes, node_multiple=4)
    fine = graph.at_scale(0)
    for i in range(1, len(patch_sizes)):
        coarse, mask = graph.at_scale(i), graph.pooling_mask(i)
        h = rng.normal(size=(2, fine.num_padded_nodes, 3))
        z = rng.normal(size=(2, coarse.num_padded_nodes, 3))
        h, z = (v.astype(np.float32) for v in (h, z))
        rows = [jnp.asarray(v.reshape(-1, 3)) for v in (h, z)]
        pooled = pool(rows[0], graph, i).reshape(z.shape)
        copied = unpool(rows[1], graph, i)
        real = slice(coarse.num_nodes)
        mean = mask / mask.sum(1, keepdims=True)
        # The mean of up to 36 values in float32.
        np.testing.assert_allclose(
            pooled[:, real], mean @ np.float64(h[:, : fine.num_nodes]), atol=1e-6
        )
        np.testing.assert_array_equal(
            copied.reshape(h.shape)[:, : fine.num_nodes], mask.T @ z[:, real]
        )
        back = pool(copied, graph, i).reshape(z.shape)
        np.testing.assert_allclose(back[:, real], z[:, real], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=3), "depth must be even.*got 3"),
        (dict(depth=0), "at least 2.*got 0"),
        (dict(patch_sizes=(3,)), "divisible by 3"),
        (dict(patch_sizes=(4, 2)), "ascending"),
    ],
)
@kinds
def test_options_that_do_not_fit_are_refused(kind, options, message):
    with pytest.raises(InputError, match=message):
        backbone_of(kind, "one scale", **options)


@kinds
def test_labels_are_needed_if_and_only_if_there_are_classes(kind):
    for case, num_classes in (("two scales", 5), ("one scale", 0)):
        params, x, t, label, _ = problem(kind, case)
        backbone = backbone_of(kind, case)
        wrong = jnp.zeros(2, jnp.int32) if label is None else None
        for function in (backbone.apply, backbone.features):
            with pytest.raises(InputError, match=f"num_classes={num_classes} needs"):
                function(params, x, t, wrong)
