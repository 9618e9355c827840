"""Layers that the backbones share: matrix products, norms, embeddings."""

from functools import partial
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

DType: TypeAlias = Literal["float32", "mixed", "bfloat16"]
"""What is computed in what; parameters, norms and reductions are float32 in each.

float32: everything. mixed: products of bfloat16 operands summed and kept in float32.
bfloat16: as mixed, and activations are kept in bfloat16 between layers.
"""

truncated_normal = nn.initializers.truncated_normal(0.02)
# The default of torch's Linear and of PyTorch Geometric: U(-1, 1) / sqrt(fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def matmul(
    x: Float[Array, "*batch k"], kernel: Float[Array, "k n"], dtype: DType
) -> Float[Array, "*batch n"]:
    """The matrix product of the package: every linear layer goes through here."""
    contract_last = (((x.ndim - 1,), (0,)), ((), ()))
    if dtype == "float32":
        return jax.lax.dot_general(
            x, kernel, contract_last, precision=jax.lax.Precision.HIGHEST
        )
    out = jax.lax.dot_general(
        x.astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        contract_last,
        preferred_element_type=jnp.float32,
    )
    return out.astype(activation_dtype(dtype))


def activation_dtype(dtype: DType) -> jnp.dtype:
    """What activations are kept in between layers."""
    return jnp.dtype(jnp.bfloat16 if dtype == "bfloat16" else jnp.float32)


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
        x = nn.gelu(x, approximate=self.tanh_gelu)
        return linear(width, name="project")(x)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """GELU in its exact form, as torch has it."""
    return nn.gelu(x, approximate=False)


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
