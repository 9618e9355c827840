"""GELU and its derivatives, alone and of a sum."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operands import platforms, random

from dig_jax.devices.target import compiling_for
from dig_jax.ops.gelu import gelu, gelu_of_sum


def test_gelu_and_its_derivatives_equal_the_formula():
    x = np.linspace(-9, 9, 721)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    x32 = jnp.asarray(x, jnp.float32)
    # Rounding of Phi(x), some 1e-7, times x.
    np.testing.assert_allclose(gelu(x32), x * cdf, atol=2e-6)
    slope = jax.vmap(jax.grad(gelu))(x32)
    np.testing.assert_allclose(slope, cdf + x * density, atol=2e-6)
    forward = jax.jvp(gelu, (x32,), (jnp.ones_like(x32),))[1]
    np.testing.assert_allclose(forward, slope, atol=1e-7)
    curvature = jax.vmap(jax.grad(jax.grad(gelu)))(x32)
    np.testing.assert_allclose(curvature, (2 - x**2) * density, atol=5e-6)


def test_tanh_gelu_and_its_derivatives_equal_the_formula():
    x = np.linspace(-9, 9, 721)
    root = math.sqrt(2 / math.pi)
    wave = np.tanh(root * (x + 0.044715 * x**3))
    inner = root * (1 + 3 * 0.044715 * x**2)
    slope = 0.5 * (1 + wave) + 0.5 * x * (1 - wave**2) * inner
    x32 = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(gelu(x32, True), 0.5 * x * (1 + wave), atol=2e-6)
    of_x = jax.vmap(jax.grad(gelu), (0, None))(x32, True)
    np.testing.assert_allclose(of_x, slope, atol=5e-6)
    forward = jax.jvp(lambda x: gelu(x, True), (x32,), (jnp.ones_like(x32),))[1]
    np.testing.assert_allclose(forward, slope, atol=5e-6)


def test_gelu_of_bfloat16_is_rounded_once():
    x = jnp.linspace(-6, 6, 301).astype(jnp.bfloat16)
    exact = gelu(x.astype(jnp.float32))
    assert gelu(x).dtype == jnp.bfloat16
    np.testing.assert_array_equal(gelu(x), exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("tanh", [False, True])
@platforms
def test_gelu_of_a_sum_is_gelu_of_the_sum(rng, platform, tanh):
    """Value, tangent, gradient and second derivative, against `gelu`, tested above."""
    x, dx, g = random(rng, 3, 4, 7, 6)
    bias, d_bias = random(rng, 2, 6)

    def derivatives(function):
        value, tangent = jax.jvp(function, (x, bias), (dx, d_bias))
        cotangents = jax.vjp(function, x, bias)[1](g)
        curved = jax.jvp(
            lambda x, b: jax.grad(lambda *p: jnp.vdot(function(*p), g), (0, 1))(x, b),
            (x, bias),
            (dx, d_bias),
        )[1]
        return value, tangent, cotangents, curved

    expected = derivatives(lambda x, b: gelu(x + b, tanh))
    with compiling_for(platform):
        actual = derivatives(lambda x, b: gelu_of_sum(x, b, tanh=tanh))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), actual, expected
    )


def test_gelu_of_a_sum_is_rounded_once_on_a_gpu(rng):
    """The bias's gradient, a sum over all rows, stays in float32."""
    x, bias = random(rng, 500, 6).astype(jnp.bfloat16), random(rng, 6)
    with compiling_for("gpu"):
        value, vjp = jax.vjp(gelu_of_sum, x, bias)
        _, of_bias = vjp(jnp.ones_like(value))
    x32 = x.astype(jnp.float32)
    np.testing.assert_array_equal(value, gelu(x32 + bias).astype(jnp.bfloat16))
    assert of_bias.dtype == jnp.float32
    slope = jax.vmap(jax.vmap(jax.grad(gelu)))(x32 + bias)
    np.testing.assert_allclose(of_bias, slope.sum(0), atol=1e-3)
