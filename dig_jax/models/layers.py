"""Layers that the backbones share: linear layers, norms, GELU, embeddings."""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.devices.target import target_platform
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.products import DType, matmul

truncated_normal = nn.initializers.truncated_normal(0.02)
# The default of torch's Linear and of PyTorch Geometric: U(-1, 1) / sqrt(fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def add_bias(
    x: Float[Array, "*batch n"], bias: Float[Array, "n"]
) -> Float[Array, "*batch n"]:
    """x + b, of the type of x."""
    return x + bias.astype(x.dtype)


class Linear(nn.Module):
    """x W + b, with W [in, features].

    Attributes:
        add: Adds the bias to the product; may do more with the sum.
    """

    features: int
    dtype: DType = "float32"
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = truncated_normal
    add: Callable[[Array, Array], Array] = add_bias

    @nn.compact
    def __call__(self, x: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        x = matmul(x, kernel, self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
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


class Convolution(nn.Module):
    """A 3x3 convolution of images and their borders of zeros, in float32."""

    features: int

    @nn.compact
    def __call__(
        self, image: Float[Array, "batch row col channel"]
    ) -> Float[Array, "batch row col out"]:
        shape = (3, 3, image.shape[-1], self.features)
        kernel = self.param("kernel", uniform_fan_in, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(image, kernel) + bias


@jax.custom_jvp
def convolve(
    image: Float[Array, "batch row col channel"],
    kernel: Float[Array, "3 3 channel out"],
) -> Float[Array, "batch row col out"]:
    """The convolution itself, as networks have it: the kernel is not flipped."""
    return jax.lax.conv_general_dilated(
        image,
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )


@convolve.defjvp
def _convolve_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (image, kernel), (d_image, d_kernel) = primals, tangents
    moved = convolve(d_image, kernel)
    return convolve(image, kernel), moved + linear_call(
        convolve, _kernel_gradient, (image,), d_kernel
    )


def _kernel_gradient(
    image: Float[Array, "batch row col channel"], g: Float[Array, "batch row col out"]
) -> Float[Array, "3 3 channel out"]:
    """The cotangent of the kernel, as a product with nine shifted images.

    What JAX derives is a convolution whose window is the whole image: the compiler for
    TPUs works on that for many minutes.
    """
    _, rows, cols, channels = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, i : i + rows, j : j + cols] for i in range(3) for j in range(3)
    ]
    product = jnp.einsum(
        "brci,brco->io",
        jnp.concatenate(shifted, axis=-1),
        g,
        precision=jax.lax.Precision.HIGHEST,
    )
    return product.reshape(3, 3, channels, -1)


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
        activate = partial(gelu_of_sum, tanh=self.tanh_gelu)
        x = linear(round(width * self.ratio), add=activate, name="expand")(x)
        return linear(width, name="project")(x)


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


def look_up(
    table: Float[Array, "row width"], index: Int[Array, "batch"]
) -> Float[Array, "batch width"]:
    """Rows of a table.

    Its gradient is a product: that of an indexing is a scatter, which adds in any order
    on GPUs, and one row after the other on TPUs.
    """
    return linear_call(
        lambda i, rows: rows[i],
        partial(_add_rows, num_rows=len(table)),
        (index,),
        table,
    )


def _add_rows(
    index: Int[Array, "batch"], g: Float[Array, "batch width"], num_rows: int
) -> Float[Array, "row width"]:
    one_hot = jax.nn.one_hot(index, num_rows, dtype=g.dtype)
    return jnp.einsum("br,bw->rw", one_hot, g, precision=jax.lax.Precision.HIGHEST)


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
