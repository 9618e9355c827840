"""Layers that the backbones share: linear layers, norms, GELU, embeddings."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.ops.convolution import convolve
from dig_jax.ops.gelu import add_bias, gelu_of_sum
from dig_jax.ops.layer_norm import layer_norm
from dig_jax.ops.products import DType, matmul

# timm's trunc_normal_(std=0.02), which cuts at 2: at a hundred deviations, not at two.
small_normal = nn.initializers.normal(0.02)
# The default of torch's Linear and of PyTorch Geometric: U(-1, 1) / sqrt(fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@cache
def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1, 1) / sqrt(fan_in), as torch starts its convolutions and their biases."""
    bound = 1 / math.sqrt(fan_in)

    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32
    ) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """x W + b, with W [in, features].

    Attributes:
        add: Adds the bias to the product; may do more with the sum.
    """

    features: int
    dtype: DType = "float32"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = small_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    add: Callable[[Array, Array], Array] = add_bias

    @nn.compact
    def __call__(self, x: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        x = matmul(x, kernel, self.dtype)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            x = self.add(x, bias)
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
        if self.affine and target_platform() == "gpu":
            scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
            bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
            return layer_norm(x, scale, bias, self.epsilon)
        y = x.astype(jnp.float32)
        mean = jnp.mean(y, axis=-1, keepdims=True)
        if target_platform() == "cpu":
            variance = jnp.mean(jnp.square(y - mean), axis=-1, keepdims=True)
        else:  # both sums in one pass: a sixth of an MLP's time on a TPU
            square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
            variance = jnp.maximum(square - jnp.square(mean), 0)
        y = (y - mean) * jax.lax.rsqrt(variance + self.epsilon)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
            y = y * scale + self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return y.astype(x.dtype)


class Convolution(nn.Module):
    """A 3x3 convolution of images and their borders of zeros, in float32.

    It starts as torch's do.
    """

    features: int

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch row col channel"]
    ) -> Float[Array, "batch row col out"]:
        shape = (3, 3, image.shape[-1], self.features)
        kernel = self.param("kernel", uniform_fan_in, shape)
        start = torch_uniform(9 * image.shape[-1])
        bias = self.param("bias", start, (self.features,))
        return convolve(image, kernel) + bias


class MLP(nn.Module):
    """Linear, GELU, linear, with a hidden width of `ratio` times the width.

    Attributes:
        tanh_gelu: GELU in its tanh approximation instead of its exact form.
    """

    ratio: float
    dtype: DType = "float32"
    tanh_gelu: bool = False
    kernel_init: nn.initializers.Initializer = small_normal

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        width = x.shape[-1]
        linear = partial(Linear, dtype=self.dtype, kernel_init=self.kernel_init)
        activate = partial(gelu_of_sum, tanh=self.tanh_gelu)
        x = linear(round(width * self.ratio), add=activate, name="expand")(x)
        return linear(width, name="project")(x)


def by_image(
    rows: Float[Array, "rows width"], batch: int
) -> Float[Array, "batch token width"]:
    """[batch * token, width] to [batch, token, width].

    Of what all tokens of an image share, as a gate, a TPU would write a copy for each
    row, at half of a block's time.
    """
    return rows.reshape(batch, -1, rows.shape[-1])


TimeInput: TypeAlias = Literal["continuous", "step", "step_from_0"]


def time_of_step(t: Float[Array, "batch"], kind: TimeInput) -> Float[Array, "batch"]:
    """What a network's embedding of the time is given for t in [0, 1].

    continuous: 999 t. Of t = n / 1000 in a chain of 1,000 steps, step: 1000 t = n (the
    code of U-ViT for latents), and step_from_0: 1000 t - 1 = n - 1 (DiT and DiffiT).
    """
    match kind:
        case "continuous":
            return 999.0 * t
        case "step":
            return 1000.0 * t
        case "step_from_0":
            return 1000.0 * t - 1.0


def sinusoidal_embedding(
    t: Float[Array, "batch"], width: int, max_period: float = 10_000.0
) -> Float[Array, "batch width"]:
    """Cosines and sines of t at geometrically spaced frequencies, in float32.

    Args:
        t: Timestep, in units of the longest frequency's radian (`time_of_step`).
        width: Size of the embedding; an odd one ends with a zero.
        max_period: Period / 2 pi of the slowest wave.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(embedding, ((0, 0), (0, width % 2)))
