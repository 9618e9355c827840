"""Layers that the backbones share: linear layers, norms, GELU, embeddings."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.models.linear_call import linear_call
from dig_jax.models.products import DType, matmul

truncated_normal = nn.initializers.truncated_normal(0.02)
# The default of torch's Linear and of PyTorch Geometric: U(-1, 1) / sqrt(fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x W + b, with W [in, features]."""

    features: int
    dtype: DType = "float32"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = truncated_normal

    @nn.compact
    def __call__(self, x: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        x = matmul(x, kernel, self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(x.dtype)
        return x


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, in float32 (epsilon as in torch).

    Attributes:
        affine: Whether a learned scale and bias follow.
    """

    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(variance + self.epsilon)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
            y = y * scale + self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return y.astype(x.dtype)


class MLP(nn.Module):
    """Linear, GELU, linear, with a hidden width of `ratio` times the width.

    Attributes:
        tanh_gelu: GELU in its tanh approximation instead of its exact form.
    """

    ratio: float
    dtype: DType = "float32"
    tanh_gelu: bool = False
    kernel_init: nn.initializers.Initializer = truncated_normal

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        width = x.shape[-1]
        linear = partial(Linear, dtype=self.dtype, kernel_init=self.kernel_init)
        x = linear(round(width * self.ratio), name="expand")(x)
        x = nn.gelu(x, approximate=True) if self.tanh_gelu else gelu(x)
        return linear(width, name="project")(x)


@jax.custom_jvp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """GELU in its exact form, x Phi(x), as torch has it; computed in float32."""
    y = x.astype(jnp.float32)
    return (y * _normal_cdf(y)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return gelu(x), linear_call(_times_gelu_slope, _times_gelu_slope, (x,), dx)


def _times_gelu_slope(
    x: Float[Array, "*shape"], d: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    # The barrier keeps XLA from storing Phi(x) for the backward pass: reading it back
    # costs more than computing it again.
    y = jax.lax.optimization_barrier(x).astype(jnp.float32)
    density = jnp.exp(-0.5 * y * y) / math.sqrt(2 * math.pi)
    return ((_normal_cdf(y) + y * density) * d).astype(d.dtype)


def _normal_cdf(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def look_up(
    table: Float[Array, "row width"], index: Int[Array, "batch"]
) -> Float[Array, "batch width"]:
    """Rows of a table by a product: the gradient of an indexing is a scatter.

    Scatters add in any order on GPUs, and one after the other on TPUs.
    """
    one_hot = jax.nn.one_hot(index, len(table), dtype=table.dtype)
    return jnp.matmul(one_hot, table, precision="highest")


def sinusoidal_embedding(
    t: Float[Array, "batch"], width: int, max_period: float = 10_000.0
) -> Float[Array, "batch width"]:
    """Cosines and sines of t at geometrically spaced frequencies, in float32.

    Args:
        t: Timestep, in units of the longest frequency's radian (the backbones pass
            999 t).
        width: Size of the embedding; an odd one ends with a zero.
        max_period: Period / 2 pi of the slowest wave.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, width % 2)))
