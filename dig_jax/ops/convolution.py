"""The 3x3 convolution that ends a network; see `conv2d` for others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.ops.linear_call import linear_call


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
