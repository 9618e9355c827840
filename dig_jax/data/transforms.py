"""Between uint8 pixels and the range that networks see, and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PRNGKeyArray, UInt8

from dig_jax.errors import NonFiniteError

ROUNDING = "round((x + 1) * 127.5), half to even, clipped to 0..255"
"""How `to_uint8` makes pixels; a score's record carries it."""


def to_unit_range(
    images: UInt8[Array | np.ndarray, "*shape"],
) -> Float32[Array, "*shape"]:
    """Pixels 0..255 as float32 in [-1, 1]: x / 127.5 - 1. `to_uint8` inverts it."""
    # In this form both ends are exact; as x / 127.5 - 1, XLA makes 255 into 1 + 2**-23.
    return (2 * jnp.asarray(images).astype(jnp.float32) - 255) / 255


def to_uint8(
    images: Float[Array | np.ndarray, "*shape"],
) -> UInt8[np.ndarray, "*shape"]:
    """Pixels of images in [-1, 1]: round((x + 1) * 127.5), clipped to 0..255.

    Runs on the host and not under jit: a cast would turn NaN into some grey value and
    nobody would know.

    Raises:
        NonFiniteError: A value is NaN or infinite.
    """
    values = np.asarray(images, np.float32)
    num_bad = values.size - int(np.isfinite(values).sum())
    if num_bad:
        raise NonFiniteError(
            f"Images need finite values, got {num_bad} of {values.size} that are not."
        )
    return np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8)


def random_flip(
    key: PRNGKeyArray, images: Float[Array, "batch row col rgb"]
) -> Float[Array, "batch row col rgb"]:
    """Mirrors each image left to right with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)
