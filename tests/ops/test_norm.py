"""Norms and their derivatives equal their formulas on each platform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operands import platforms, random

from dig_jax.devices.target import compiling_for
from dig_jax.models.layers import LayerNorm
from dig_jax.ops.layer_norm import layer_norm


@platforms
def test_a_norm_is_the_same_in_one_pass_and_in_two(rng, platform):
    x = random(rng, 6, 64) * 3 + 2
    with compiling_for(platform):
        y, _ = LayerNorm(affine=False).init_with_output(jax.random.key(0), x)
    expected = normalized(np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(y), expected, atol=1e-5)


def normalized(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("affine", [True, False])
@platforms
def test_derivatives_of_a_norm_are_those_of_its_formula(rng, platform, affine):
    """Finite differences in float64 along a direction in x, scale and bias."""
    scales = {k: random(rng, 2, 24) for k in ("scale", "bias")} if affine else {}
    params = {k: v[0] for k, v in scales.items()}, 3 * random(rng, 2, 5, 24) + 2
    moved = {k: v[1] for k, v in scales.items()}, random(rng, 2, 5, 24)
    g = random(rng, 2, 5, 24)

    def in_numpy(step):
        at = jax.tree.map(
            lambda p, d: np.asarray(p, np.float64) + step * np.asarray(d, np.float64),
            params,
            moved,
        )
        unit = normalized(at[1])
        return unit * at[0]["scale"] + at[0]["bias"] if affine else unit

    with compiling_for(platform):

        def apply(scales, x) -> Any:
            return LayerNorm(affine=affine).apply({"params": scales}, x)

        value, tangent = jax.jvp(apply, params, moved)
        cotangents = jax.vjp(apply, *params)[1](g)
        of_sum = jax.jvp(lambda *p: jnp.vdot(apply(*p), g), params, moved)[1]
        curved = jax.jvp(
            lambda p: jax.grad(lambda *p: jnp.vdot(apply(*p), g), 1)(*p),
            (params,),
            (moved,),
        )[1]
    np.testing.assert_allclose(value, in_numpy(0.0), atol=1e-5)
    expected = (in_numpy(1e-5) - in_numpy(-1e-5)) / 2e-5
    np.testing.assert_allclose(tangent, expected, atol=1e-5)
    along = jax.tree.map(lambda c, d: np.vdot(c, np.float64(d)), cotangents, moved)
    expected_sum = np.vdot(expected, np.float64(g))
    np.testing.assert_allclose(sum(jax.tree.leaves(along)), expected_sum, atol=1e-3)
    np.testing.assert_allclose(of_sum, expected_sum, atol=1e-3)
    second = (in_numpy(1e-3) - 2 * in_numpy(0.0) + in_numpy(-1e-3)) / 1e-6
    if not affine:  # of x alone: the second derivative along the direction, twice
        np.testing.assert_allclose(
            np.vdot(curved, np.float64(moved[1])),
            np.vdot(second, np.float64(g)),
            atol=1e-2,
        )


def test_a_norm_of_bfloat16_is_rounded_once_on_a_gpu(rng):
    x = (3 * random(rng, 5, 24) + 2).astype(jnp.bfloat16)
    scale, bias = random(rng, 2, 24)
    with compiling_for("gpu"):
        value, vjp = jax.vjp(lambda *p: layer_norm(*p, 1e-5), x, scale, bias)
        exact = layer_norm(x.astype(jnp.float32), scale, bias, 1e-5)
        of_x, *of_params = vjp(jnp.ones_like(value))
    np.testing.assert_array_equal(value, exact.astype(jnp.bfloat16))
    assert of_x.dtype == jnp.bfloat16
    # Sums over the rows stay in float32.
    assert {v.dtype for v in jax.tree.leaves(of_params)} == {jnp.dtype("float32")}
