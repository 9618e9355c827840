"""Random images of any shape, for tests and benchmarks: no files, no download."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dig_jax.data.fingerprint import compute_fingerprint
from dig_jax.errors import InputError

_SPLITS = ("train", "test")
_VERSION = 1  # Goes up when the same options give other images.


class SyntheticSource:
    """Uniform noise with uniform labels: an `ImageSource` made of arithmetic.

    Image i is a pure function of (seed, split, i): block i of a Philox stream whose key
    is a hash of seed and split. Raw bits, because NumPy keeps those the same for ever.
    """

    name = "synthetic"
    transform = "none"
    may_flip = True

    def __init__(
        self,
        *,
        split: str,
        image_shape: tuple[int, int, int],
        num_classes: int,
        length: int,
        seed: int,
    ):
        self.split = split
        self.image_shape = image_shape
        self.num_classes = num_classes
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.fingerprint = compute_fingerprint(
            name=self.name,
            version=_VERSION,
            split=split,
            image_shape=image_shape,
            num_classes=num_classes,
            length=length,
            seed=seed,
        )
        self._length = length
        key = hashlib.sha256(f"{seed}/{split}".encode()).digest()[:16]
        self._key = int.from_bytes(key, "little")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(f"Index {index} is outside of {self._length} images.")
        num_bytes = int(np.prod(self.image_shape))
        # The counter is 256 bits wide, its lowest word first: images never overlap.
        stream = np.random.Philox(key=self._key, counter=[0, index, 0, 0])
        words = stream.random_raw(1 + -(-num_bytes // 8))
        pixels = words[1:].astype("<u8", copy=False).view(np.uint8)[:num_bytes]
        label = int(words[0]) % self.num_classes if self.num_classes else 0
        return {"image": pixels.reshape(self.image_shape), "label": np.int32(label)}


def create_synthetic(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
    num_classes: int | None = None,
    length: int = 1000,
    seed: int = 0,
    data_dir: str = "",
) -> SyntheticSource:
    """Random images and labels, made on the fly.

    Args:
        split: train or test; the two have no image in common.
        image_size: Rows and columns, or one number for both.
        channels: 1 or 3, or 4 as latents have.
        num_classes: Number of labels; 0 for images without. None: those of the
            backbone in an experiment, else 10.
        length: Number of images.
        seed: Another seed gives other images.
        data_dir: Of no effect: nothing is stored.

    Raises:
        InputError: An option is out of its range.
    """
    rows, cols = (image_size,) * 2 if isinstance(image_size, int) else image_size
    num_classes = 10 if num_classes is None else num_classes
    if split not in _SPLITS:
        raise InputError(
            f"Data set 'synthetic' has no split {split!r}. "
            f"Available: {', '.join(_SPLITS)}."
        )
    if rows < 1 or cols < 1:
        raise InputError(f"image_size must be at least 1, got {rows}x{cols}.")
    if channels not in (1, 3, 4):
        raise InputError(f"channels must be 1, 3 or 4, got {channels}.")
    if length < 1:
        raise InputError(f"length must be at least 1, got {length}.")
    if num_classes < 0 or seed < 0:
        raise InputError(
            "num_classes and seed must not be negative, got "
            f"num_classes={num_classes}, seed={seed}."
        )
    return SyntheticSource(
        split=split,
        image_shape=(rows, cols, channels),
        num_classes=num_classes,
        length=length,
        seed=seed,
    )
