"""Convolutions of images, dense and depthwise; kernels are not flipped."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.products import DType, activation_dtype

Features: TypeAlias = Float[Array, "batch row col channel"]
DepthwiseKernel: TypeAlias = Float[Array, "side side channel"]


def conv2d(
    image: Features,
    kernel: Float[Array, "rows cols channel out"],
    dtype: DType = "float32",
    *,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
) -> Float[Array, "batch out_row out_col out"]:
    """A convolution with zeros around the image.

    In low precision operands and result are bfloat16, summed in float32 by the device.

    Args:
        image: Features of each pixel.
        kernel: One matrix for each offset.
        dtype: float32 for full precision, else bfloat16 operands.
        stride: In rows and columns.
        padding: Rows and columns of zeros (before, after); None for as many on each
            side as keep the size at stride 1.
    """
    if padding is None:
        around = [(side // 2, side // 2) for side in kernel.shape[:2]]
    else:
        around = [padding, padding]
    operand = jnp.float32 if dtype == "float32" else jnp.bfloat16
    out = lax.conv_general_dilated(
        image.astype(operand),
        kernel.astype(operand),
        window_strides=(stride, stride),
        padding=around,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
    )
    return out.astype(activation_dtype(dtype))


@jax.custom_jvp
def depthwise_conv2d(image: Features, kernel: DepthwiseKernel) -> Features:
    """Each channel convolved with its own odd square, zeros around it; in float32.

    On a CPU as a sum of shifted images, for which XLA's grouped convolution takes 50
    times as long; elsewhere as that convolution.
    """
    return linear_call(_convolve, _transposed, (kernel,), image)


@depthwise_conv2d.defjvp
def _jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (image, kernel), (d_image, d_kernel) = primals, tangents
    moved = depthwise_conv2d(d_image, kernel)
    side = kernel.shape[0]
    return depthwise_conv2d(image, kernel), moved + linear_call(
        lambda x, k: _convolve(k, x),
        lambda x, g: _kernel_cotangent(x, g, side),
        (image,),
        d_kernel,
    )


def _convolve(kernel: DepthwiseKernel, image: Features) -> Features:
    if target_platform() == "cpu":
        return _by_shifts(image, kernel)
    return _grouped(kernel, image)


def _grouped(kernel: DepthwiseKernel, image: Features) -> Features:
    side, _, channels = kernel.shape
    return lax.conv_general_dilated(
        image,
        kernel.reshape(side, side, 1, channels),
        window_strides=(1, 1),
        padding=[(side // 2, side // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=lax.Precision.HIGHEST,
    )


def _transposed(kernel: DepthwiseKernel, g: Features) -> Features:
    return _convolve(kernel[::-1, ::-1], g)


def depthwise_by_shifts(image: Features, kernel: DepthwiseKernel) -> Features:
    """The sum of images shifted by each offset, a row of the kernel after the other.

    All offsets at once compile ten times as long, and run as fast.
    """
    side = kernel.shape[0]
    rows, cols = image.shape[1:3]
    padded = _pad(image, side)

    def add_row(total: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        i, weights = one
        band = lax.dynamic_slice_in_dim(padded, i, rows, axis=1)
        for j in range(side):
            total = total + band[:, :, j : j + cols] * weights[j]
        return total, None

    start = jnp.zeros_like(image)
    return lax.scan(add_row, start, (jnp.arange(side), kernel))[0]


SHIFTED_SUM = depthwise_by_shifts.__name__
"""Name of a program that `dig_jax.costs` counts as a depthwise convolution."""
_by_shifts = jax.jit(depthwise_by_shifts)


def _kernel_cotangent(image: Features, g: Features, side: int) -> DepthwiseKernel:
    """The sum over pixels of g times the image shifted by each offset.

    What JAX derives is a convolution whose window is the whole image: on a TPU the best
    way, by the compiler's estimate a twentieth of the sums', and a bad one elsewhere.
    """
    rows, cols, channels = image.shape[1:]
    if target_platform() == "tpu":
        kernel = jax.ShapeDtypeStruct((side, side, channels), image.dtype)
        of_kernel = jax.linear_transpose(lambda k: _grouped(k, image), kernel)
        return of_kernel(g)[0]
    padded = _pad(image, side)

    def of_row(_: None, i: Array) -> tuple[None, Array]:
        band = lax.dynamic_slice_in_dim(padded, i, rows, axis=1)
        of_offset = [
            jnp.sum(band[:, :, j : j + cols] * g, axis=(0, 1, 2)) for j in range(side)
        ]
        return None, jnp.stack(of_offset)

    return lax.scan(of_row, None, jnp.arange(side))[1]


def _pad(image: Features, side: int) -> Float[Array, "batch high_row wide_col channel"]:
    around = (side // 2, side // 2)
    return jnp.pad(image, ((0, 0), around, around, (0, 0)))
