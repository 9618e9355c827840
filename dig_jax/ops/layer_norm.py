"""Layer normalization as few kernels of a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.ops.linear_call import linear_call


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*batch width"],
    scale: Float[Array, "width"],
    bias: Float[Array, "width"],
    epsilon: float,
) -> Float[Array, "*batch width"]:
    """Layer normalization for GPUs, in float32, of the type of x.

    Forward, XLA makes one kernel of a mean and a variance that are taken one after the
    other, and reads x once. The backward pass keeps x alone; the four sums of each row
    that it needs are one kernel, the gradients another.
    """
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(variance + epsilon) * scale + bias
    return y.astype(x.dtype)


@layer_norm.defjvp
def _layer_norm_jvp(epsilon: float, primals: tuple, tangents: tuple) -> tuple:
    x, scale, bias = primals

    def tangent(x: Array, scale: Array, moved: tuple[Array, Array, Array]) -> Array:
        dx, d_scale, d_bias = moved
        unit, slope = _normalized(x, dx.astype(jnp.float32), epsilon)
        return (slope * scale + unit * d_scale + d_bias).astype(x.dtype)

    def transpose(x: Array, scale: Array, g: Array) -> tuple[Array, Array, Array]:
        # The barrier keeps XLA from taking a sum of the forward pass for one of these.
        x, g = jax.lax.optimization_barrier(x), g.astype(jnp.float32)
        unit, of_x = _normalized(x, g * scale, epsilon)
        rows = tuple(range(x.ndim - 1))
        of_scale, of_bias = jnp.sum(g * unit, axis=rows), jnp.sum(g, axis=rows)
        return of_x.astype(x.dtype), of_scale, of_bias

    return layer_norm(x, scale, bias, epsilon), linear_call(
        tangent, transpose, (x, scale), tangents
    )


def _normalized(
    x: Float[Array, "*batch width"], d: Float[Array, "*batch width"], epsilon: float
) -> tuple[Float[Array, "*batch width"], Float[Array, "*batch width"]]:
    """x normalized, and d times the slope of that, which is symmetric; in float32."""

    def mean_of(rows: Float[Array, "*batch width"]) -> Float[Array, "*batch 1"]:
        return jnp.mean(rows, axis=-1, keepdims=True)

    y = x.astype(jnp.float32)
    mean, square, d_mean, product = map(mean_of, (y, jnp.square(y), d, d * y))
    inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    unit = (y - mean) * inverse
    along = (product - mean * d_mean) * inverse  # the mean of d times unit
    return unit, inverse * (d - d_mean - unit * along)
