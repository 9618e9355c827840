"""GELU, alone and of a sum with a bias, by the derivatives that XLA does best."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.ops.linear_call import linear_call


def add_bias(
    x: Float[Array, "*batch n"], bias: Float[Array, "n"]
) -> Float[Array, "*batch n"]:
    """x + b, of the type of x."""
    return x + bias.astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def gelu(x: Float[Array, "*shape"], tanh: bool = False) -> Float[Array, "*shape"]:
    """GELU, x Phi(x), as torch has it; computed in float32.

    Args:
        x: Of any type.
        tanh: Take the normal distribution Phi by its tanh approximation.
    """
    return _gelu_of_float32(tanh, x.astype(jnp.float32)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(tanh: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    times_slope = partial(_times_gelu_slope, tanh)
    return gelu(x, tanh), linear_call(times_slope, times_slope, (x,), dx)


def gelu_of_sum(
    x: Float[Array, "*batch n"], bias: Float[Array, "n"], *, tanh: bool = False
) -> Float[Array, "*batch n"]:
    """GELU of x + b; see `gelu`.

    On a GPU the sum is in float32, and the backward pass adds again: to write it
    between the product and GELU's result costs as much as to write that.
    """
    if target_platform() != "gpu":
        return gelu(add_bias(x, bias), tanh)
    return _gelu_of_sum(x, bias, tanh)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _gelu_of_sum(
    x: Float[Array, "*batch n"], bias: Float[Array, "n"], tanh: bool
) -> Float[Array, "*batch n"]:
    return _gelu_of_float32(tanh, x.astype(jnp.float32) + bias).astype(x.dtype)


@_gelu_of_sum.defjvp
def _gelu_of_sum_jvp(tanh: bool, primals: tuple, tangents: tuple) -> tuple:
    (x, bias), moved = primals, tangents

    def times_slope(x: Array, bias: Array, moved: tuple[Array, Array]) -> Array:
        dx, d_bias = moved
        d = dx.astype(jnp.float32) + d_bias
        return (d * slope(x, bias)).astype(dx.dtype)

    def transpose(x: Array, bias: Array, g: Array) -> tuple[Array, Array]:
        of_sum = g.astype(jnp.float32) * slope(x, bias)
        of_bias = jnp.sum(of_sum, axis=tuple(range(x.ndim - 1)))
        return of_sum.astype(x.dtype), of_bias

    def slope(x: Array, bias: Array) -> Array:
        # For the barrier see `_times_gelu_slope`.
        y = jax.lax.optimization_barrier(x).astype(jnp.float32) + bias
        return _gelu_slope(tanh, y)

    return _gelu_of_sum(x, bias, tanh), linear_call(
        times_slope, transpose, (x, bias), moved
    )


def _times_gelu_slope(
    tanh: bool, x: Float[Array, "*shape"], d: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    # The barrier keeps XLA from storing Phi(x) for the backward pass: reading it back
    # costs more than computing it again.
    y = jax.lax.optimization_barrier(x).astype(jnp.float32)
    moved = d.astype(jnp.float32)
    return jax.jvp(partial(_gelu_of_float32, tanh), (y,), (moved,))[1].astype(d.dtype)


def _gelu_of_float32(tanh: bool, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    if tanh:
        return jax.nn.gelu(x, approximate=True)
    # Not jax.nn.gelu's erfc, which XLA:CPU takes twice as long for.
    return x * (0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)))


def _gelu_slope(tanh: bool, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """In closed form, and (1 + tanh(u)) / 2 as the sigmoid of 2 u.

    Of what JAX derives by tanh XLA makes two kernels on a GPU, with float32 in between.
    """
    if tanh:
        slope, cubic, square = 2 * math.sqrt(2 / math.pi), 0.044715, jnp.square(x)
        cdf = jax.lax.logistic(slope * x * (1 + cubic * square))
        return cdf + x * cdf * (1 - cdf) * slope * (1 + 3 * cubic * square)
    density = jnp.exp(-0.5 * jnp.square(x)) / math.sqrt(2 * math.pi)
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5)) + x * density
