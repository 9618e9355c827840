"""Images in npz files: `train.npz`, `test.npz` in a folder, or one file.

MedMNIST's one file for all splits is read as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from pydantic import NonNegativeInt, PositiveFloat

from dig_jax.data.data_dir import explain_remote_errors, open_data_dir
from dig_jax.data.fingerprint import compute_fingerprint
from dig_jax.errors import InputError
from dig_jax.files.npz import Header, NpzFile, open_npz

if TYPE_CHECKING:
    from etils import epath

# Ours, and those of ADM's reference batches.
_IMAGE_KEYS = ("images", "arr_0")
_LABEL_KEYS = ("labels", "arr_1")
# MedMNIST's, all splits in one file.
_MEDMNIST_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


class NpzSource:
    """Images and labels of one npz file, in memory: an `ImageSource`.

    Worker processes read the file again.

    Args:
        path: Local, or remote as in `gs://`.
        split: What the file is called.
        num_classes: None for one more than the largest label.
        max_bytes: Files that declare more are refused before anything is read.

    Raises:
        InputError: No such file, or its arrays are not images and labels.
    """

    name = "npz"
    transform = "none"
    may_flip = True

    def __init__(
        self,
        path: epath.Path,
        *,
        split: str,
        num_classes: int | None,
        max_bytes: int,
    ):
        self.split = split
        self._path = path
        self._max_bytes = max_bytes
        self._images, self._labels, largest = _read_npz(path, split, max_bytes)
        self.num_classes = largest + 1 if num_classes is None else num_classes
        if largest >= self.num_classes:
            raise InputError(
                f"{path} has a label {largest}, and num_classes={self.num_classes}."
            )
        if self._labels is None and self.num_classes:
            raise InputError(
                f"{path} has no labels, and num_classes={self.num_classes}; it must "
                f"be 0."
            )
        self.class_names = tuple(str(label) for label in range(self.num_classes))
        rows, cols, channels = self._images.shape[1:]
        self.image_shape = (rows, cols, channels)
        digest = hashlib.sha256(self._images.data)
        if self._labels is not None:
            digest.update(self._labels.data)
        self.fingerprint = compute_fingerprint(
            name=self.name,
            split=split,
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            content=digest.hexdigest(),
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of {len(self)} images.")
        label = 0 if self._labels is None else self._labels[index]
        return {"image": self._images[index], "label": np.int32(label)}

    def count_labels(self) -> Int64[np.ndarray, "class"] | None:
        """Images of each class; None where there are no labels."""
        if self._labels is None:
            return None
        return np.bincount(self._labels, minlength=self.num_classes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None, "_labels": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        found = _read_npz(self._path, self.split, self._max_bytes)
        self._images, self._labels, _ = found


def create_npz(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    num_classes: NonNegativeInt | None = None,
    max_gigabytes: PositiveFloat = 8.0,
    data_dir: str = "",
) -> NpzSource:
    """Images from npz files: images uint8 [image, row, col, rgb], labels if there are.

    The arrays are called images and labels, or arr_0 and arr_1 as in ADM's reference
    batches, or train_images, train_labels, val_images, ..., test_labels as in
    MedMNIST's files; grey images may lack their last axis. Nothing pickled is read.

    Args:
        split: The file's name without `.npz`; of MedMNIST's train, validation or test.
        image_size: What the images must have; None for any.
        channels: 1 or 3; None for either.
        num_classes: Number of labels; None for one more than the largest (of all
            splits, in MedMNIST's files), and 0 without labels.
        max_gigabytes: Limit on what the file may unpack to, in 10^9 bytes.
        data_dir: The folder of the files; or one file, which is then train and test
            alike, or has them all.

    Raises:
        InputError: No such file, or it is not what it should be.
    """
    path = open_data_dir(data_dir)
    if path.suffix != ".npz":
        path = path / f"{split}.npz"
    with explain_remote_errors(data_dir):
        source = NpzSource(
            path,
            split=split,
            num_classes=num_classes,
            max_bytes=int(max_gigabytes * 1e9),
        )
    rows, cols, found = source.image_shape
    size = (image_size,) * 2 if isinstance(image_size, int) else image_size
    if size not in (None, (rows, cols)) or channels not in (None, found):
        raise InputError(
            f"{path} has images of {rows}x{cols}x{found} (rows, cols, channels), got "
            f"image_size={image_size}, channels={channels}."
        )
    return source


class _Keys(NamedTuple):
    """Names of arrays: images, their labels, and the labels of other splits."""

    images: str
    labels: str | None
    other_labels: tuple[str, ...] = ()


def _read_npz(
    path: epath.Path, split: str, max_bytes: int
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Images uint8 [image, row, col, rgb], labels int32 [image] or None, the largest.

    The largest is that of all splits in the file, and -1 where there are no labels.
    """
    if not path.exists():
        raise InputError(
            f"Data set 'npz' needs data_dir, a folder with train.npz and test.npz or "
            f"one npz file; {path} does not exist."
        )
    with open_npz(path) as npz:
        keys = _find_keys(npz, split)
        read = partial(npz.read, max_bytes=max_bytes, limit="max_gigabytes")
        images = read(keys.images, _check_images)
        images = np.ascontiguousarray(images[..., None] if images.ndim == 3 else images)
        images.setflags(write=False)
        if keys.labels is None:
            return images, None, -1
        labels = read(keys.labels, partial(_check_labels, len(images)))
        of_all = [labels]
        for key in keys.other_labels:
            length = (*npz.header(key).shape, 0)[0]
            of_all.append(read(key, partial(_check_labels, length)))
    low = min(int(array.min(initial=0)) for array in of_all)
    high = max(int(array.max(initial=0)) for array in of_all)
    if low < 0 or high >= 2**31:
        raise InputError(
            f"{path}: labels must not be negative, and reach from {low} to {high}."
        )
    return images, labels.astype(np.int32).reshape(-1), high


def _find_keys(npz: NpzFile, split: str) -> _Keys:
    """The arrays of a split.

    Raises:
        InputError: There are no images, or none of that split.
    """
    image_key = next((key for key in _IMAGE_KEYS if key in npz), None)
    if image_key is not None:
        return _Keys(image_key, next((key for key in _LABEL_KEYS if key in npz), None))
    prefixes = dict.fromkeys(_MEDMNIST_SPLITS.values())
    there = [prefix for prefix in prefixes if f"{prefix}_images" in npz]
    if not there:
        raise InputError(
            f"{npz.place} needs an array {' or '.join(_IMAGE_KEYS)}, or train_images "
            f"and the like as MedMNIST has, and has {npz.describe()}."
        )
    prefix = _MEDMNIST_SPLITS.get(split, split)
    if prefix not in there:
        raise InputError(
            f"{npz.place} has no split {split!r}. Available: {', '.join(there)}."
        )
    named = [f"{p}_labels" for p in there if f"{p}_labels" in npz]
    own = f"{prefix}_labels"
    if own not in named:
        return _Keys(f"{prefix}_images", None)
    return _Keys(f"{prefix}_images", own, tuple(key for key in named if key != own))


def _check_images(header: Header) -> None:
    shape = header.shape + (1,) * (len(header.shape) == 3)
    if 0 in shape:
        raise ValueError("there are no images")
    if header.dtype != np.uint8 or len(shape) != 4 or shape[-1] not in (1, 3):
        raise ValueError(
            "images must be uint8 [image, row, col, rgb] with 1 or 3 channels"
        )


def _check_labels(num_images: int, header: Header) -> None:
    # MedMNIST's have a second axis, of the tasks.
    if header.dtype.kind not in "iu" or header.shape not in (
        (num_images,),
        (num_images, 1),
    ):
        raise ValueError(
            f"labels must be {num_images} whole numbers, one for each image"
        )
