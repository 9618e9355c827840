"""Data sets of latents: what an autoencoder made of each image and its mirror image.

A record holds the moments of both as bytes, so that a prepared set of latents is read,
checked and resumed as one of pixels is: its `image` is uint8 [row, col, byte] with, for
each place of the latent, mean and log variance of the image, then those of its mirror
image. A latent is drawn from the moments when a batch is used
(`dig_jax/training/clean.py`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from dig_jax.data.data_dir import explain_remote_errors, open_data_dir
from dig_jax.data.prepared import find_prepared
from dig_jax.data.tfds_source import TFDSSource, open_prepared
from dig_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

MomentsType: TypeAlias = Literal["float16", "float32"]
METADATA = "latents"
"""The key of `LatentRecord` in a data set's metadata."""


class LatentRecord(NamedTuple):
    """What a set of latents was made of, as its metadata keeps it.

    Attributes:
        encoder: Digest of the encoder's weights.
        scale: What latents are multiplied by.
        moments: What the moments are stored as.
        pixels: The version folder of the prepared images.
        name: What that data set is called.
        pixels_transform: How its images came to their size.
        fingerprints: Of its splits.
        may_flip: Whether a mirrored image is still one of its class.
    """

    encoder: str
    scale: float
    moments: MomentsType
    pixels: str
    name: str
    pixels_transform: str
    fingerprints: dict[str, str]
    may_flip: bool


class LatentSource(TFDSSource):
    """One split of a prepared set of latents.

    Args:
        builder: Where it is.
        split: One of its splits.
        record: What it was made of.
        pixels: Where the images are now, if elsewhere.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        split: str,
        record: LatentRecord,
        pixels: str = "",
    ):
        super().__init__("latents", builder, split=split, may_flip=record.may_flip)
        self.record = record
        self._pixels = pixels or record.pixels

    def open_pixels(self) -> TFDSSource:
        """The images that these are the latents of.

        Raises:
            InputError: They are not there, or are others.
        """
        advice = "Name the folder where they are with data.pixels."
        with explain_remote_errors(self._pixels):
            folder = open_data_dir(self._pixels)
            if not (folder / "dataset_info.json").exists():
                raise InputError(
                    f"Latents are scored as pixels, against the images that they were "
                    f"made of, which are not in {folder}. {advice}"
                )
            found = TFDSSource(
                self.record.name,
                open_prepared(folder),
                split=self.split,
                transform=self.record.pixels_transform,
                may_flip=self.record.may_flip,
            )
        wanted = self.record.fingerprints.get(self.split)
        if found.fingerprint != wanted:
            raise InputError(
                f"The images in {folder} are others than those that the latents were "
                f"made of (fingerprint {found.fingerprint}, not {wanted}). {advice}"
            )
        return found


def create_latents(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 32,
    channels: int = 4,
    moments: MomentsType = "float16",
    pixels: str = "",
    data_dir: str = "",
) -> LatentSource:
    """What `python -m dig_jax.prepare latents` has made of a prepared data set.

    Args:
        split: One of that data set's.
        image_size: Rows and columns of a latent, an eighth of an image's.
        channels: Of a latent.
        moments: What the moments are stored as.
        pixels: The version folder of the images, for scores, if it has moved.
        data_dir: Where the latents are: one set of a size for each data_dir.

    Raises:
        InputError: There are none, or they are of another kind.
    """
    rows, cols = (image_size,) * 2 if isinstance(image_size, int) else image_size
    variant = f"{rows}x{cols}x{channels}"
    with explain_remote_errors(data_dir):
        builder = find_prepared(
            "latents", data_dir, variant, options="--autoencoder=FILE"
        )
        source = LatentSource(builder, split, read_record(builder), pixels)
    wanted = record_shape((rows, cols, channels), moments)
    if source.record.moments != moments or source.image_shape != wanted:
        raise InputError(
            f"The latents in {builder.data_path} have moments of "
            f"{source.record.moments}: config.data.moments must be that, got "
            f"{moments}."
        )
    return source


def read_record(builder: tfds.core.DatasetBuilder) -> LatentRecord:
    """What a set of latents was made of.

    Raises:
        InputError: It does not say.
    """
    path = builder.data_path / "metadata.json"
    try:
        return LatentRecord(**json.loads(path.read_text())[METADATA])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{builder.data_path} does not say what its latents were made of: make "
            f"them again with `python -m dig_jax.prepare latents`."
        ) from error


def check_latents(source: LatentSource, scale: float, encoder: str | None) -> None:
    """Raise InputError unless latents are of this scale and encoder.

    Args:
        source: The latents.
        scale: Of the configuration.
        encoder: Digest of the autoencoder's that is named; None if none is.
    """
    record = source.record
    if record.scale != scale:
        raise InputError(
            f"These latents are for the scale {record.scale:g}: "
            f"config.data.latent_scale must be that, got {scale:g}."
        )
    if encoder is not None and record.encoder != encoder:
        raise InputError(
            f"These latents were made by another autoencoder (encoder "
            f"{record.encoder}) than config.data.autoencoder names (encoder "
            f"{encoder})."
        )


def record_shape(
    latent_shape: tuple[int, int, int], moments: str
) -> tuple[int, int, int]:
    """(row, col, byte) of a record: two images, two moments of each channel."""
    rows, cols, channels = latent_shape
    return rows, cols, 4 * channels * np.dtype(moments).itemsize


def pack_moments(
    moments: Float32[np.ndarray, "mirror row col twice_channels"], kind: str
) -> UInt8[np.ndarray, "row col byte"]:
    """The bytes of a record, from the moments of an image and of its mirror image."""
    stored = moments.transpose(1, 2, 0, 3).astype(np.dtype(kind).newbyteorder("<"))
    rows, cols = stored.shape[:2]
    return np.ascontiguousarray(stored).view(np.uint8).reshape(rows, cols, -1)


def unpack_moments(
    stored: UInt8[Array, "batch row col byte"], channels: int
) -> Float[Array, "mirror batch row col twice_channels"]:
    """Undo `pack_moments`, in float32."""
    *places, num_bytes = stored.shape
    itemsize = num_bytes // (4 * channels)
    kind: Any = {2: jnp.float16, 4: jnp.float32}[itemsize]
    numbers = stored.reshape(*places, 2, 2 * channels, itemsize)
    moments = jax.lax.bitcast_convert_type(numbers, kind).astype(jnp.float32)
    return jnp.moveaxis(moments, -2, 0)
