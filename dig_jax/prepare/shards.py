"""One shard of a prepared data set: images in, an array_record file and its record out.

A shard is written under another name and renamed when it is whole, so that it can be
made again after a crash, in a worker process as well as here.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dig_jax.data.decode import BadImageError, decode_image
from dig_jax.errors import InputError
from dig_jax.prepare.resize import TRANSFORMS
from dig_jax.prepare.splits import RawImage

Advance = Callable[[int], None]
"""Told how many more images are done."""


class ImageRule(NamedTuple):
    """What every image of a data set becomes.

    Attributes:
        shape: (row, col, rgb).
        transform: How images of another size come to it; a name in TRANSFORMS.
        num_classes: 0 for images without labels.
        upright: Whether a camera's note of how it was held is obeyed.
        skip_bad: Leave out image files that cannot be used, instead of stopping.
    """

    shape: tuple[int, int, int]
    transform: str
    num_classes: int
    upright: bool = False
    skip_bad: bool = False


@dataclass
class ShardRecord:
    """What is known of a finished shard, as JSON keeps it.

    Attributes:
        file: Its name.
        num_records: Images in it.
        num_bytes: Of its records, before compression.
        sha256: Of the file.
        content: SHA-256 of pixels and labels alone, in their order.
        notes: How often images were converted, by what was done.
        skipped: The image files that were left out, and why.
        labels: How often each label occurs.
    """

    file: str
    num_records: int = 0
    num_bytes: int = 0
    sha256: str = ""
    content: str = ""
    notes: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def write_shard(
    path: Path, images: Iterable[RawImage], rule: ImageRule, advance: Advance
) -> ShardRecord:
    """Write one array_record file, whole or not at all.

    Raises:
        InputError: An image cannot be used, and is not to be skipped; or the disk is
            full.
    """
    from array_record.python import array_record_module

    record, notes, labels = ShardRecord(path.name), Counter(), Counter()
    content = hashlib.sha256()
    partial = path.with_name(path.name + ".partial")
    writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1")
    try:
        for raw in images:
            try:
                pixels, done = to_pixels(raw, rule)
            except BadImageError as error:
                if not rule.skip_bad:
                    raise InputError(
                        f"{raw.place} cannot be used: {error}. Take it away, or leave "
                        f"such files out with --skip_bad."
                    ) from error
                record.skipped.append(f"{raw.place}: {error}")
            else:
                serialized = _serialize(pixels, raw.label if rule.num_classes else None)
                writer.write(serialized)
                record.num_records += 1
                record.num_bytes += len(serialized)
                content.update(pixels.tobytes() + raw.label.to_bytes(4, "little"))
                notes.update(done)
                labels[str(raw.label)] += 1
            advance(1)
    except RuntimeError as error:
        raise _explain(error, partial) from error
    finally:
        _close(writer, partial)
    record.content = content.hexdigest()
    record.notes, record.labels = dict(notes), dict(labels)
    _check_written(partial, record.num_records)
    record.sha256 = hash_file(partial)
    partial.replace(path)
    return record


def to_pixels(raw: RawImage, rule: ImageRule) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image as uint8 pixels of the rule's shape, and what was done to it.

    Raises:
        BadImageError: It cannot be used.
    """
    if isinstance(raw.image, np.ndarray):
        if raw.image.shape != rule.shape or raw.image.dtype != np.uint8:
            raise BadImageError(f"it is {raw.image.dtype} {raw.image.shape}")
        return raw.image, ()
    rows, cols, channels = rule.shape
    image, notes = decode_image(raw.image, channels=channels, upright=rule.upright)
    if image.width < cols or image.height < rows:
        notes = (*notes, "enlarged")
    pixels = TRANSFORMS[rule.transform](image, (rows, cols))
    assert pixels.shape == rule.shape
    return np.ascontiguousarray(pixels), notes


def make_features(shape: tuple[int, int, int], num_classes: int) -> Any:
    """TFDS's features of a prepared data set.

    Pixels are stored as they are: a record is read five times as fast as a PNG, which
    would be about half as large.
    """
    import tensorflow_datasets as tfds

    features: dict[str, Any] = {
        "image": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
    }
    if num_classes:
        features["label"] = tfds.features.ClassLabel(num_classes=num_classes)
    return tfds.features.FeaturesDict(features)


def _serialize(pixels: np.ndarray, label: int | None) -> bytes:
    """A record of `make_features`' features, the same bytes in every process.

    TFDS's own serializer leaves the order of the features to chance.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(pixels.tobytes())
    if label is not None:
        feature["label"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _close(writer: Any, partial: Path) -> None:
    if writer.is_open():
        try:
            writer.close()
        except RuntimeError as error:
            raise _explain(error, partial) from error


def _explain(error: RuntimeError, partial: Path) -> InputError:
    return InputError(f"{partial} cannot be written: {error}.")


def _check_written(partial: Path, num_records: int) -> None:
    """Read back how many records there are, and have the disk keep them."""
    from array_record.python import array_record_module

    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    try:
        reader = array_record_module.ArrayRecordReader(str(partial))
        found = reader.num_records()
        reader.close()
    except RuntimeError as error:
        raise _explain(error, partial) from error
    if found != num_records:
        raise InputError(
            f"{partial} must have {num_records} records, and has {found}: is the disk "
            f"full?"
        )
