"""From records to what a network learns: pixels in [-1, 1], or latents."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

from dig_jax.data.latents import unpack_moments
from dig_jax.data.transforms import random_flip, to_uint8, to_unit_range
from dig_jax.interfaces import Images
from dig_jax.models.autoencoder import latents_of
from dig_jax.options import DataOptions
from dig_jax.sampling.decoding import SHOWN_RANGE


def clean_images(
    key: PRNGKeyArray, stored: UInt8[Array, "batch row col stored"], data: DataOptions
) -> Images:
    """x0 of a batch, mirrored at random where that is asked.

    Latents are drawn from their moments; a mirrored one is that of the mirrored image,
    not the mirrored latent.

    Args:
        key: Draws which are mirrored, and latents.
        stored: As the data set has them: pixels, or moments as bytes.
        data: Which of the two.
    """
    if stored.shape[1:] == data.image_shape:
        x0 = to_unit_range(stored)
        return random_flip(key, x0) if data.random_flip else x0
    moments, mirrored = unpack_moments(stored, data.channels)
    flip_key, noise_key = jax.random.split(key)
    if data.random_flip:
        flip = jax.random.bernoulli(flip_key, 0.5, (len(stored), 1, 1, 1))
        moments = jnp.where(flip, mirrored, moments)
    noise = jax.random.normal(noise_key, (len(stored), *data.image_shape))
    return latents_of(moments, noise, data.latent_scale)


def shown_record(
    stored: UInt8[np.ndarray, "row col stored"], data: DataOptions
) -> UInt8[np.ndarray, "row col rgb"]:
    """A record as a picture: its pixels, or the first channels of its mean latent.

    Args:
        stored: As the data set has it.
        data: Which of the two.
    """
    if stored.shape == data.image_shape:
        return stored[..., :3]
    moments = unpack_moments(jnp.asarray(stored)[None], data.channels)[0]
    latent = np.asarray(latents_of(moments, scale=data.latent_scale))[0]
    return to_uint8(latent[..., :3] / SHOWN_RANGE)
