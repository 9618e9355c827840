"""Layers on images: convolutions with torch's start, group norm, patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.graphs import image_to_patches
from dig_jax.models.layers import torch_uniform, uniform_fan_in
from dig_jax.ops.conv2d import conv2d, depthwise_conv2d
from dig_jax.ops.products import DType, matmul

Features = Float[Array, "batch row col channel"]


class Conv2D(nn.Module):
    """A square convolution, with a bias or without; kernel [row, col, in, out].

    Attributes:
        stride: In rows and columns.
        padding: Rows and columns of zeros (before, after); None: half the side.
        bias_init: None: as torch starts it.
    """

    features: int
    side: int = 3
    dtype: DType = "float32"
    stride: int = 1
    padding: tuple[int, int] | None = None
    kernel_init: nn.initializers.Initializer = uniform_fan_in
    use_bias: bool = True
    bias_init: nn.initializers.Initializer | None = None

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch out_row out_col out"]:
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        start = self.bias_init or torch_uniform(self.side**2 * x.shape[-1])
        x = conv2d(x, kernel, self.dtype, stride=self.stride, padding=self.padding)
        if not self.use_bias:
            return x
        return x + self.param("bias", start, (self.features,)).astype(x.dtype)


class DepthwiseConv2D(nn.Module):
    """A convolution of each channel by itself with a bias; kernel [row, col, channel].

    Attributes:
        side: Of the kernel; odd.
        kernel_init: None: as torch starts it.
        bias_init: The same.
    """

    side: int = 7
    kernel_init: nn.initializers.Initializer | None = None
    bias_init: nn.initializers.Initializer | None = None

    @nn.compact
    def __call__(self, x: Features) -> Features:
        channels, start = x.shape[-1], torch_uniform(self.side**2)
        shape = (self.side, self.side, channels)
        kernel = self.param("kernel", self.kernel_init or start, shape)
        bias = self.param("bias", self.bias_init or start, (channels,))
        y = depthwise_conv2d(x.astype(jnp.float32), kernel) + bias
        return y.astype(x.dtype)


class Patchify(nn.Module):
    """A convolution whose stride is its kernel's side, as a product of patches.

    The kernel is [row * col * channel, out], the channel fastest.
    """

    features: int
    patch_size: int
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch patch out"]:
        patches = image_to_patches(x, self.patch_size)
        fan_in = patches.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (fan_in, self.features))
        bias = self.param("bias", torch_uniform(fan_in), (self.features,))
        h = matmul(patches, kernel, self.dtype)
        return h + bias.astype(h.dtype)


class GroupNorm(nn.Module):
    """Normalization over pixels and the channels of each group, in float32.

    Attributes:
        groups: A divisor of the channels.
    """

    groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Features) -> Features:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # [batch, pixel, group, channel of the group]
        y = x.astype(jnp.float32).reshape(
            len(x), -1, self.groups, channels // self.groups
        )
        mean = jnp.mean(y, axis=(1, 3), keepdims=True)
        variance = jnp.mean(jnp.square(y - mean), axis=(1, 3), keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (y.reshape(x.shape) * scale + bias).astype(x.dtype)
