"""Make a data set of latents from a prepared one, once.

    python -m dig_jax.prepare latents --source=PREPARED --autoencoder=FILE

Each image and its mirror image are encoded; what is kept are the moments, of which
training draws a latent each time. Options:
  --source=PREPARED    a prepared data set: its folder, or the version folder in it
  --autoencoder=FILE   as `python -m dig_jax.interop.convert --autoencoder` writes it
  --data_dir=DIR       where to write; TFDS's own folder if not given
  --moments=TYPE       float16 (default) or float32
  --scale=X            what latents are multiplied by (default 0.18215)
  --batch_size=N       images that are encoded at a time (default 16)

Stopped or killed, the same command goes on where it stopped.
"""

import argparse
import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from dig_jax.data.latents import (
    METADATA,
    LatentRecord,
    pack_moments,
    record_shape,
)
from dig_jax.data.prepared import UPRIGHT, prepared_path
from dig_jax.data.tfds_source import TFDSSource, open_prepared
from dig_jax.data.transforms import to_uint8, to_unit_range
from dig_jax.errors import InputError
from dig_jax.files.shown import say
from dig_jax.interfaces import Params
from dig_jax.models.autoencoder import SCALE, Autoencoder, latents_of
from dig_jax.prepare.preparation import PreparedFolder, prepare_shown
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import RawDataset, RawImage
from dig_jax.storage.autoencoder_file import read_autoencoder_file, weights_digest

ROUND_TRIPS = 8
"""Images whose way there and back is measured."""


@dataclass(frozen=True)
class Encoder:
    """Encodes batches of one size, so that moments do not depend on their batch.

    Attributes:
        autoencoder: The network.
        params: Its parameters.
        batch_size: Images at a time, each with its mirror image.
    """

    autoencoder: Autoencoder
    params: Params
    batch_size: int

    def __call__(
        self, images: UInt8[np.ndarray, "image row col rgb"]
    ) -> Float32[np.ndarray, "image mirror low_row low_col twice_channels"]:
        """Moments of up to batch_size images and of their mirror images."""
        missing = self.batch_size - len(images)
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        both = _encode(self.autoencoder, self.params, padded)
        return np.moveaxis(np.asarray(both), 0, 1)[: len(images)]


@partial(jax.jit, static_argnums=0)
def _encode(autoencoder: Autoencoder, params: Params, images: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        x = to_unit_range(images)
        return jnp.stack([autoencoder.encode(params, y) for y in (x, x[:, :, ::-1])])


class LatentSplit:
    """A split's records of latents, encoded as they are iterated over."""

    def __init__(
        self, source: TFDSSource, encoder: Encoder, moments: str, made_by: str
    ) -> None:
        self._source, self._encoder, self._moments = source, encoder, moments
        text = f"{source.fingerprint} {made_by} {moments}"
        self.identity = hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def part(self, start: int, stop: int) -> Iterator[RawImage]:
        """Some records in a row.

        Raises:
            InputError: Moments that their type cannot hold.
        """
        step = self._encoder.batch_size
        for first in range(start, stop, step):
            rows = range(first, min(first + step, stop))
            records = self._source.__getitems__(rows)
            moments = self._encoder(np.stack([row["image"] for row in records]))
            with np.errstate(over="ignore"):
                stored = moments.astype(self._moments)
            if not np.isfinite(stored).all():
                raise InputError(
                    f"Images {first} to {rows[-1]} of split {self._source.split!r} "
                    f"have moments that are not finite in {self._moments}: use "
                    f"--moments=float32, or another autoencoder."
                )
            for index, record, of_image in zip(rows, records, moments, strict=True):
                packed = pack_moments(of_image, self._moments)
                yield RawImage(f"image {index}", packed, int(record["label"]))


def prepare_latents(
    source: Path,
    autoencoder_file: Path,
    data_dir: str,
    *,
    moments: str = "float16",
    scale: float = SCALE,
    batch_size: int = 16,
) -> PreparedFolder:
    """Encode a prepared data set.

    Args:
        source: Its folder.
        autoencoder_file: From `dig_jax.interop.convert`.
        data_dir: Where the latents are to be.
        moments: float16 or float32.
        scale: What latents will be multiplied by.
        batch_size: Images encoded at a time.

    Raises:
        InputError: No prepared data set or autoencoder, images that it cannot encode,
            or other latents are there already.
    """
    autoencoder, params = read_autoencoder_file(autoencoder_file, scale=scale)
    folder = _version_folder(source)
    splits = _open_splits(folder)
    first = next(iter(splits.values()))
    shape = _latent_shape(first, autoencoder)
    digest = weights_digest(params["encoder"])
    record = LatentRecord(
        encoder=digest,
        scale=scale,
        moments=moments,  # pyright: ignore[reportArgumentType] (checked by the parser)
        pixels=str(folder.resolve()),
        name=_entry_of(folder),
        pixels_transform=first.transform,
        fingerprints={name: split.fingerprint for name, split in splits.items()},
        may_flip=first.may_flip,
    )
    encoder = Encoder(autoencoder, jax.device_put(params), batch_size)
    raw = _raw_latents(splits, encoder, record, folder)
    rule = ImageRule(
        record_shape(shape, moments), first.transform, len(first.class_names)
    )
    path = Path(prepared_path("latents", data_dir, "x".join(map(str, shape))))
    made = prepare_shown(raw, path, rule, "encode")
    say(
        f"latents are prepared in {made.path}\n"
        f"  from       {raw.source}\n"
        f"  latents    {'x'.join(map(str, shape))}, moments in {moments}, scale "
        f"{scale:g}"
    )
    for name, split in splits.items():
        say(f"  {name:<10} {len(split):,}")
    say(
        f"  there and back  {_round_trip(first, encoder):.3g} of 255 root mean square, "
        f"over the first {min(ROUND_TRIPS, len(first))} images"
    )
    say(f"  read with  {_reading_flags(shape[0], moments, data_dir, autoencoder_file)}")
    return made


def _raw_latents(
    splits: Mapping[str, TFDSSource],
    encoder: Encoder,
    record: LatentRecord,
    folder: Path,
) -> RawDataset:
    """What is to be written: latents of each split, encoded as they are read."""
    first, digest = next(iter(splits.values())), record.encoder
    return RawDataset(
        splits={
            name: LatentSplit(
                split, encoder, record.moments, f"{digest} {record.scale!r}"
            )
            for name, split in splits.items()
        },
        class_names=first.class_names,
        encoded=False,
        source=f"{folder}, by the encoder {digest}",
        transform=first.transform,
        metadata={METADATA: record._asdict()},
    )


def _reading_flags(
    image_size: int, moments: str, data_dir: str, autoencoder_file: Path
) -> str:
    """What a configuration reads the latents by."""
    read_with = {
        "name": "latents",
        "image_size": image_size,
        "moments": moments,
        "data_dir": Path(data_dir).expanduser().absolute() if data_dir else "",
        "autoencoder": autoencoder_file,
    }
    return shlex.join(f"--config.data.{k}={v}" for k, v in read_with.items())


def _version_folder(source: Path) -> Path:
    """The folder of a prepared data set's version, from that or the one around it."""
    found = [source, *sorted(source.glob("*.*.*"))] if source.is_dir() else []
    for folder in found:
        if (folder / "dataset_info.json").is_file():
            return folder
    raise InputError(
        f"--source must be a prepared data set, such as DIR/dig_cifar10, got {source}, "
        f"which is none. Prepare it first: python -m dig_jax.prepare --help."
    )


def _open_splits(folder: Path) -> dict[str, TFDSSource]:
    builder, name = open_prepared(folder), _entry_of(folder)
    if name == "latents":
        raise InputError(f"--source must hold images, got the latents in {folder}.")
    return {
        split: TFDSSource(name, builder, split=split, may_flip=name not in UPRIGHT)
        for split in sorted(builder.info.splits, key=lambda s: (s != "train", s))
    }


def _entry_of(folder: Path) -> str:
    """The entry of DATASETS that a prepared folder is read as."""
    from dig_jax.data import DATASETS

    called = folder.parent.name.removeprefix("dig_")
    fitting = [n for n in DATASETS if called == n or called.startswith(f"{n}_")]
    return max(fitting, key=len, default=called)


def _latent_shape(source: TFDSSource, autoencoder: Autoencoder) -> tuple[int, int, int]:
    rows, cols, channels = source.image_shape
    options = autoencoder.options
    if channels != options.image_channels:
        raise InputError(
            f"The autoencoder encodes images of {options.image_channels} channels, and "
            f"those of {source.name!r} have {channels}."
        )
    if rows % options.factor or cols % options.factor:
        raise InputError(
            f"The autoencoder needs images whose sides are multiples of "
            f"{options.factor}, and those of {source.name!r} are {rows}x{cols}."
        )
    return rows // options.factor, cols // options.factor, options.latent_channels


def _round_trip(source: TFDSSource, encoder: Encoder) -> float:
    """Root mean square error in bytes of images decoded from their means."""
    autoencoder, params = encoder.autoencoder, encoder.params
    count = min(ROUND_TRIPS, len(source), encoder.batch_size)
    images = np.stack([source[i]["image"] for i in range(count)])
    means = latents_of(jnp.asarray(encoder(images)[:, 0]), scale=1.0)
    with jax.default_matmul_precision("highest"):
        # Decoding divides by the scale that latents are multiplied by.
        scaled = means * autoencoder.scale
        decoded = to_uint8(jax.jit(autoencoder.decode)(params, scaled))
    return float(np.sqrt(np.mean((decoded.astype(float) - images) ** 2)))


def main(arguments: list[str]) -> None:
    """The command line, behind `python -m dig_jax.prepare latents`.

    Raises:
        InputError: As `prepare_latents`, or flags that do not work.
    """
    parser = _Parser(prog="python -m dig_jax.prepare latents", allow_abbrev=False)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--moments", choices=("float16", "float32"), default="float16")
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--batch_size", type=int, default=16)
    options = parser.parse_args(arguments)
    if options.batch_size < 1 or not 0 < options.scale < float("inf"):
        raise InputError(
            f"--batch_size must be at least 1 and --scale positive, got "
            f"{options.batch_size} and {options.scale:g}."
        )
    if "://" in options.data_dir:
        raise InputError(
            "Latents are prepared on a local disk: copy the finished folder to a "
            "bucket, and read it from there with data_dir=gs://..."
        )
    prepare_latents(
        options.source.expanduser(),
        options.autoencoder.expanduser(),
        options.data_dir,
        moments=options.moments,
        scale=options.scale,
        batch_size=options.batch_size,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as an InputError, and how to use it by the module's text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See python -m dig_jax.prepare latents --help.")

    def format_help(self) -> str:
        return __doc__ or ""
