"""From latents to pixels: what draws images in latent space ends with."""

from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt8

from dig_jax.data.transforms import to_uint8
from dig_jax.devices.sharding import BATCH_AXES, place_batch, replicated, to_host
from dig_jax.errors import InputError
from dig_jax.files.paths import open_path
from dig_jax.interfaces import Params
from dig_jax.options import DataOptions
from dig_jax.storage.autoencoder_file import read_autoencoder_file, weights_digest

Pixels: TypeAlias = UInt8[np.ndarray, "count high_row high_col color"]

LATENT_CHANNELS = 4
"""Images of so many channels are latents."""
SHOWN_RANGE = 3.0
"""Latents from minus to plus this are shown as 0 to 255 where nothing decodes them."""


@runtime_checkable
class ToPixels(Protocol):
    """From what a solver ends with to uint8 images.

    Attributes:
        image_shape: (row, col, rgb) of the pixels.
        record: What a record of images must say of this; {} for nothing.
    """

    image_shape: tuple[int, int, int]
    record: dict[str, str | float]

    def __call__(self, x: Float[np.ndarray, "batch row col channel"]) -> Pixels:
        """Their pixels."""
        ...


class RoundPixels:
    """Pixels are what a solver ends with, but for rounding."""

    def __init__(self, image_shape: tuple[int, int, int]):
        self.image_shape = image_shape
        self.record: dict[str, str | float] = {}

    def __call__(self, x: Float[np.ndarray, "batch row col channel"]) -> Pixels:
        """See `to_uint8`."""
        return to_uint8(x)


class FirstChannels:
    """The first three channels of latents, where there is no autoencoder."""

    def __init__(self, image_shape: tuple[int, int, int]):
        rows, cols, _ = image_shape
        self.image_shape: tuple[int, int, int] = (rows, cols, 3)
        self.record: dict[str, str | float] = {"shown": "3 channels of the latents"}
        logging.warning(
            "Pictures show the first 3 of %d channels of latents: name the autoencoder "
            "with config.data.autoencoder=FILE to decode them.",
            image_shape[2],
        )

    def __call__(self, x: Float[np.ndarray, "batch row col channel"]) -> Pixels:
        """Values of -3 to 3 as bytes."""
        return to_uint8(x[..., :3] / SHOWN_RANGE)


class Decoder:
    """Decodes latents by an autoencoder, a few at a time so that they fit in memory.

    Groups are of a fixed size, so that an image does not depend on its batch.

    Args:
        data: Names the autoencoder's file and the scale.
        mesh: The devices that decode.
        group: Latents that each device decodes at a time.

    Attributes:
        params: The decoder's parameters.

    Raises:
        InputError: There is no such file, or it is for other latents.
    """

    def __init__(self, data: DataOptions, mesh: Mesh, group: int) -> None:
        path = open_path(data.autoencoder)
        autoencoder, params = read_autoencoder_file(path, scale=data.latent_scale)
        rows, cols, channels = data.image_shape
        options = autoencoder.options
        if channels != options.latent_channels:
            raise InputError(
                f"{path} decodes latents of {options.latent_channels} channels, and "
                f"config.data has images of {channels}."
            )
        factor = options.factor
        self.image_shape = (rows * factor, cols * factor, options.image_channels)
        self.record: dict[str, str | float] = {
            "autoencoder": weights_digest(params),
            "latent_scale": data.latent_scale,
        }
        self.params = jax.device_put(params["decoder"], replicated(mesh))
        self._rows = group * mesh.size
        spread = PartitionSpec(BATCH_AXES)

        self._autoencoder = autoencoder
        self._decode = jax.jit(
            jax.shard_map(
                self.decode,
                mesh=mesh,
                in_specs=(PartitionSpec(), spread),
                out_specs=spread,
                check_vma=False,
            )
        )
        self._place = (
            partial(place_batch, mesh) if jax.process_count() > 1 else jnp.asarray
        )

    def decode(
        self, params: Params, latents: Float[Array, "batch row col channel"]
    ) -> Float[Array, "batch high_row high_col color"]:
        """Images, about [-1, 1], of scaled latents; a pure function.

        Args:
            params: As in `params`.
            latents: As many as fit in memory.
        """
        # On TPUs products of float32 are bfloat16's otherwise.
        with jax.default_matmul_precision("highest"):
            return self._autoencoder.decode({"decoder": params}, latents)

    def __call__(self, x: Float[np.ndarray, "batch row col channel"]) -> Pixels:
        """Pixels of scaled latents; with several processes all of them make the call.

        Raises:
            NonFiniteError: A latent or a pixel is not finite.
        """
        images = np.empty((len(x), *self.image_shape), np.uint8)
        for start in range(0, len(x), self._rows):
            part = x[start : start + self._rows]
            missing = self._rows - len(part)
            padded = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
            decoded = to_host(self._decode(self.params, self._place(padded)))
            images[start : start + len(part)] = to_uint8(decoded[: len(part)])
        return images


def create_to_pixels(data: DataOptions, mesh: Mesh, group: int) -> ToPixels:
    """What makes pixels of a configuration's images.

    Args:
        data: Its data section.
        mesh: The devices that decode latents.
        group: Latents that each device decodes at a time.

    Raises:
        InputError: An autoencoder where images are no latents, or another's.
    """
    if data.channels != LATENT_CHANNELS:
        if data.autoencoder:
            raise InputError(
                f"config.data.autoencoder decodes latents of {LATENT_CHANNELS} "
                f"channels, and config.data.channels is {data.channels}: leave it out."
            )
        return RoundPixels(data.image_shape)
    if not data.autoencoder:
        return FirstChannels(data.image_shape)
    return Decoder(data, mesh, group)
