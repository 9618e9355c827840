"""Random parameters and a batch for a backbone, and how far results may differ."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Some 30 layers in float32, each wrong by a few 6e-8 of its largest value, and norms
# that stretch small differences.
ROUNDING = 5e-5


class Problem(NamedTuple):
    """Parameters, a batch, and a direction in the space of predictions."""

    params: dict
    x: jax.Array
    t: jax.Array
    label: jax.Array | None
    cotangent: jax.Array


def create_problem(backbone):
    """All parameters are random: mistakes hide behind zeros and ones."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        is_scale = any(part.key == "scale" for part in path)
        around_one = is_scale and path[-1].key not in ("omega", "beta")
        return np.float32(1 + 0.2 * noise if around_one else 0.15 * noise)

    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    x, cotangent = rng.normal(size=(2, 2, *backbone.image_shape)).astype(np.float32)
    t = np.array([0.013, 0.77], np.float32)
    # The last label is that of "no class" where there is one.
    last = backbone.num_classes - 1 + backbone.null_label
    label = np.array([last, 0]) if backbone.num_classes else None
    return Problem(*jax.tree.map(jnp.asarray, (params, x, t, label, cotangent)))


def in_numpy(network, problem, **options):
    """Predictions and features of the batch from a network for one image."""
    as_float64 = partial(np.asarray, dtype=np.float64)
    params = jax.tree.map(as_float64, problem.params)
    images = [
        network(
            params,
            as_float64(problem.x[i]),
            as_float64(problem.t[i]),
            None if problem.label is None else int(problem.label[i]),
            **options,
        )
        for i in range(len(problem.x))
    ]
    outputs, features = zip(*images, strict=True)
    return np.stack(outputs), np.stack(features, axis=1)


def output_and_gradient(backbone, problem):
    """Prediction, and the gradient of its product with the cotangent."""

    @jax.jit
    def run(params):
        output, vjp = jax.vjp(
            lambda p: backbone.apply(p, problem.x, problem.t, problem.label), params
        )
        return output, vjp(problem.cotangent)[0]

    return run(problem.params)


def assert_close(actual, expected, tolerance=ROUNDING):
    """Leaf by leaf, to a fraction of each leaf's largest value."""

    def compare(path, a, b):
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        assert a.shape == b.shape
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error < tolerance, f"{jax.tree_util.keystr(path)}: {error:.2g}"

    jax.tree_util.tree_map_with_path(compare, actual, expected)


def assert_low_precision_is_close(actual, expected):
    """Output and gradient with bfloat16 products beside those in float32."""
    (output, gradient), (exact_output, exact_gradient) = actual, expected
    assert output.dtype == jnp.float32
    # Operands are rounded to 2^-9; over some 30 products in a row that is
    # sqrt(30) * 2^-9 = 1% in size, and three times that in the worst of 400 values.
    assert_close(output, exact_output, 0.05)
    assert np.abs(output - exact_output).max() > 1e-4
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    flat, exact = (
        np.concatenate([np.ravel(g) for g in jax.tree.leaves(tree)])
        for tree in (gradient, exact_gradient)
    )
    assert np.linalg.norm(flat - exact) < 0.05 * np.linalg.norm(exact)
