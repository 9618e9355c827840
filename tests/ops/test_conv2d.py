"""Convolutions on every platform's path, with derivatives that belong to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.ops.conv2d import conv2d, depthwise_conv2d

platforms = pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def neighborhoods(image, side, padding=None):
    before, after = padding or (side // 2, side // 2)
    padded = np.pad(np.float64(image), ((0, 0), *[(before, after)] * 2, (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))


@platforms
@pytest.mark.parametrize("side", [1, 3, 7])
def test_depthwise_equals_a_sum_over_neighborhoods(platform, side):
    image, kernel = draw(2, 5, 6, 3), draw(side, side, 3, seed=1)
    with compiling_for(platform):
        out = jax.jit(depthwise_conv2d)(image, kernel)
    expected = np.einsum("brcdkl,kld->brcd", neighborhoods(image, side), kernel)
    np.testing.assert_allclose(out, expected, atol=2e-5)


@platforms
def test_depthwise_has_the_gradients_of_a_bilinear_map(platform):
    """<g, A(x, k)> = <x, its gradient> = <k, its gradient>, and both are right at g."""
    image, kernel, g = draw(2, 5, 6, 3), draw(5, 5, 3, seed=1), draw(2, 5, 6, 3, seed=2)

    def product(image, kernel):
        return jnp.sum(g * depthwise_conv2d(image, kernel))

    with compiling_for(platform):
        value = jax.jit(product)(image, kernel)
        of_image, of_kernel = jax.jit(jax.grad(product, (0, 1)))(image, kernel)
    np.testing.assert_allclose(jnp.sum(of_image * image), value, rtol=1e-4)
    windows = neighborhoods(image, 5)
    expected = np.einsum("brcdkl,brcd->kld", windows, np.float64(g))
    np.testing.assert_allclose(of_kernel, expected, atol=5e-5)
    # The transpose at one pixel: g around it, and the kernel turned round.
    around = neighborhoods(g, 5)[0, 2, 3][:, ::-1, ::-1]
    expected = np.einsum("dkl,kld->d", around, kernel)
    np.testing.assert_allclose(of_image[0, 2, 3], expected, atol=5e-5)


@platforms
def test_depthwise_has_forward_derivatives(platform):
    image, kernel = draw(1, 4, 4, 2), draw(3, 3, 2, seed=1)
    d_image, d_kernel = draw(1, 4, 4, 2, seed=2), draw(3, 3, 2, seed=3)
    with compiling_for(platform):
        _, moved = jax.jvp(depthwise_conv2d, (image, kernel), (d_image, d_kernel))
        expected = depthwise_conv2d(d_image, kernel) + depthwise_conv2d(image, d_kernel)
    np.testing.assert_allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "stride", "padding"), [(3, 1, None), (1, 1, None), (3, 2, (0, 1))]
)
def test_dense_equals_a_sum_over_neighborhoods(side, stride, padding):
    image, kernel = draw(2, 6, 8, 3), draw(side, side, 3, 4, seed=1)
    out = conv2d(image, kernel, stride=stride, padding=padding)
    windows = neighborhoods(image, side, padding)[:, ::stride, ::stride]
    expected = np.einsum("brcikl,klio->brco", windows, kernel)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    low = conv2d(image, kernel, "mixed", stride=stride, padding=padding)
    assert low.dtype == jnp.float32
    # Operands and result are rounded to 2^-9, sums of up to 27 products of size 1.
    np.testing.assert_allclose(low, expected, atol=0.15)
