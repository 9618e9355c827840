"""Products of low precision against NumPy in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from operands import exact, random

from dig_jax.devices.target import compiling_for
from dig_jax.ops.convolution import convolve
from dig_jax.ops.gelu import gelu
from dig_jax.ops.look_up import look_up
from dig_jax.ops.node_product import node_product
from dig_jax.ops.products import batched_matmul, matmul

# Kernels whose rows divide by 16, by 2 and by nothing; of many rows to few columns.
SHAPES = [((4, 16), 8), ((2, 3, 18), 5), ((7, 13), 3), ((40, 24), 3)]
low_precision = pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
# Sums of at most 40 products in float32.
ROUNDING = 1e-5


def rounded(values):
    return np.asarray(jnp.asarray(values).astype(jnp.bfloat16), np.float64)


def in_float32(dtype, x, kernel):
    """The product as a loss sees it."""
    return matmul(x, kernel, dtype).astype(jnp.float32)


def mixed(x, kernel):
    return matmul(x, kernel, "mixed")


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("shape", "out"), SHAPES)
def test_mixed_products_and_derivatives_round_operands_alone(rng, shape, out, platform):
    """As products of rounded operands: also of the rounded cotangent or tangent."""
    x, kernel = random(rng, *shape), random(rng, shape[-1], out)
    g, dx, dkernel = random(rng, *shape[:-1], out), random(rng, *shape), kernel + 1

    @jax.jit
    def run(x, kernel):
        value, vjp = jax.vjp(mixed, x, kernel)
        tangents = (dx, dkernel)
        tangent = jax.jvp(mixed, (x, kernel), tangents)[1]
        return value, *vjp(g), tangent

    with compiling_for(platform):
        value, of_x, of_kernel, tangent = run(x, kernel)
    x_, kernel_, g_ = rounded(x), rounded(kernel), rounded(g)
    rows, g_rows = x_.reshape(-1, shape[-1]), g_.reshape(-1, out)
    for actual, expected in (
        (value, x_ @ kernel_),
        (of_x, g_ @ kernel_.T),
        (of_kernel, rows.T @ g_rows),
        (tangent, rounded(dx) @ kernel_ + x_ @ rounded(dkernel)),
    ):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, atol=ROUNDING * shape[-1])


def test_float32_products_are_not_rounded(rng):
    x, kernel = random(rng, 5, 16), random(rng, 16, 4)
    value, vjp = jax.vjp(exact, x, kernel)
    x_, kernel_ = (np.asarray(v, np.float64) for v in (x, kernel))
    np.testing.assert_allclose(value, x_ @ kernel_, atol=ROUNDING)
    of_x, of_kernel = vjp(value)
    np.testing.assert_allclose(
        of_x, np.asarray(value, np.float64) @ kernel_.T, atol=1e-4
    )
    np.testing.assert_allclose(
        of_kernel, x_.T @ np.asarray(value, np.float64), atol=1e-4
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_batched_products_and_derivatives_equal_the_formula(rng, dtype, transpose_b):
    """Of operands, cotangents and tangents that are rounded beforehand."""
    a, da = (random(rng, 3, 5, 16).astype(jnp.bfloat16) for _ in range(2))
    b, db = (random(rng, 3, 16, 7).astype(jnp.bfloat16) for _ in range(2))
    g = random(rng, 3, 5, 7).astype(jnp.bfloat16)

    def order(x):
        return jnp.swapaxes(x, 1, 2) if transpose_b else x

    def product(a, b):
        return batched_matmul(a, order(b), dtype, transpose_b=transpose_b)

    a, da, b, db, g = (x.astype(jnp.float32) for x in (a, da, b, db, g))
    value, vjp = jax.vjp(product, a, b)
    of_a, of_b = vjp(g)
    tangent = jax.jvp(product, (a, b), (da, db))[1]
    A, dA, B, dB, G = (np.asarray(x, np.float64) for x in (a, da, b, db, g))
    for actual, expected in (
        (value, A @ B),
        (of_a, G @ B.swapaxes(1, 2)),
        (of_b, A.swapaxes(1, 2) @ G),
        (tangent, dA @ B + A @ dB),
    ):
        np.testing.assert_allclose(actual, expected, atol=16 * ROUNDING)


@low_precision
def test_every_product_of_a_training_step_takes_bfloat16(dtype):
    """In float32 they are several times slower on CPUs, GPUs and TPUs."""

    def loss(x, kernels):
        for kernel in kernels:
            x = matmul(gelu(x), kernel, dtype)
        return jnp.sum(x.astype(jnp.float32))

    x, kernel = jnp.ones((4, 32)), jnp.ones((32, 32))
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, [kernel] * 3).as_text()
    operands = re.findall(r"dot_general .*: \((\S+), (\S+)\) ->", text)
    # Forward, gradient of the features, gradient of the kernel; no more than those,
    # and the last product's value is not needed.
    assert len(operands) in (8, 9)
    assert all("bf16" in operand for pair in operands for operand in pair)


@low_precision
def test_a_product_of_constants_has_no_product_in_its_derivative(dtype):
    """Only what is differentiated is multiplied by."""
    x, kernel = jnp.ones((4, 32)), jnp.ones((32, 32))
    for argument in (0, 1):
        derivative = jax.grad(lambda *a: jnp.sum(in_float32(dtype, *a)), argument)
        text = jax.jit(derivative).lower(x, kernel).as_text()
        assert text.count("stablehlo.dot_general") <= 2


@low_precision
def test_gradients_of_single_images_add_up(rng, dtype):
    x, kernel = random(rng, 3, 5, 16), random(rng, 16, 4)

    def loss(kernel, x):
        return jnp.sum(jnp.sin(in_float32(dtype, x, kernel)))

    per_image = jax.vmap(jax.grad(loss), (None, 0))(kernel, x)
    total = jax.grad(loss)(kernel, x)
    np.testing.assert_allclose(per_image.sum(0), total, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_products_over_nodes_equal_the_formula(rng, dtype):
    """Also with factors: those of the results are the cotangents'."""
    matrix = rng.integers(-3, 4, (6, 9)).astype(float)
    h, dh, g = random(rng, 18, 5), random(rng, 18, 5), random(rng, 12, 5)
    before, after = (rng.normal(size=(n, 1)).astype(np.float32) for n in (9, 6))

    def product(h):
        return node_product(matrix, h, dtype, before=before, after=after)

    value, vjp = jax.vjp(product, h)
    (cotangent,) = vjp(g)
    _, tangent = jax.jvp(product, (h,), (dh,))
    keep = rounded if dtype == "mixed" else np.float64

    def expected(matrix, before, h, after):
        per_image = h.reshape(2, -1, 5)
        return (after * (matrix @ keep(before * per_image))).reshape(-1, 5)

    for actual, wanted in (
        (value, expected(matrix, before, h, after)),
        (tangent, expected(matrix, before, dh, after)),
        (cotangent, expected(matrix.T, after, g, before)),
    ):
        np.testing.assert_allclose(actual, wanted, atol=20 * ROUNDING)


def test_a_convolution_and_its_derivatives_equal_their_sums(rng):
    image, d_image = random(rng, 2, 5, 4, 3), random(rng, 2, 5, 4, 3)
    kernel, d_kernel = random(rng, 3, 3, 3, 2), random(rng, 3, 3, 3, 2)
    g = random(rng, 2, 5, 4, 2)

    def in_numpy(image, kernel):
        padded = np.pad(np.float64(image), ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            padded[:, i : i + 5, j : j + 4] @ np.float64(kernel[i, j])
            for i in range(3)
            for j in range(3)
        )

    value, tangent = jax.jvp(convolve, (image, kernel), (d_image, d_kernel))
    np.testing.assert_allclose(value, in_numpy(image, kernel), atol=1e-5)
    # It is linear in each, so its derivative is itself, and its transpose is adjoint.
    moved = in_numpy(d_image, kernel), in_numpy(image, d_kernel)
    np.testing.assert_allclose(tangent, moved[0] + moved[1], atol=1e-5)
    of_image, of_kernel = jax.vjp(convolve, image, kernel)[1](g)
    for cotangent, direction, expected in (
        (of_image, d_image, moved[0]),
        (of_kernel, d_kernel, moved[1]),
    ):
        assert np.vdot(cotangent, direction) == pytest.approx(
            np.vdot(np.float64(g), expected), abs=1e-4
        )


def test_rows_that_are_looked_up_have_gradients_that_add_up(rng):
    table, g = random(rng, 4, 3), random(rng, 5, 3)
    index = jnp.array([2, 0, 2, 3, 2])
    rows, vjp = jax.vjp(lambda table: look_up(table, index), table)
    np.testing.assert_array_equal(rows, np.asarray(table)[index])
    expected = np.zeros((4, 3))
    np.add.at(expected, np.asarray(index), np.asarray(g, np.float64))
    np.testing.assert_allclose(vjp(g)[0], expected, atol=1e-6)
