"""What every reader of raw data hands out: splits of named images with labels."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int64, UInt8

from dig_jax.prepare.archives import FileSet


class RawImage(NamedTuple):
    """One image as it was found.

    Attributes:
        place: Where it is, for messages.
        image: Pixels, uint8 [row, col, rgb], or an image file's bytes.
        label: 0 where there are no classes.
    """

    place: str
    image: np.ndarray | bytes
    label: int


@runtime_checkable
class RawSplit(Protocol):
    """Images in the order in which they are to be written.

    Attributes:
        identity: Hex digest that changes with the images, as far as that is cheap.
    """

    identity: str

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> Iterable[RawImage]:
        """Some images in a row."""
        ...


class RawDataset(NamedTuple):
    """A data set as it was found.

    Attributes:
        splits: By name.
        class_names: A name for each label; none if there are no classes.
        encoded: Whether images are files, which are decoded and transformed, in worker
            processes if wanted; then parts of splits can be pickled.
        source: What it was read from, in words.
        transform: What was done to the images before, where that is known.
        left_out: The files that are no images, in words; "" for none.
        name: What it is called in scores; "" for its name in DATASETS.
        test_share: Share of the training images that became its test images.
        metadata: What else the prepared set's metadata shall say, as JSON.
        image_shape: (row, col, rgb) of images in memory, where data sets that are read
            in the same way differ in it.
    """

    splits: Mapping[str, RawSplit]
    class_names: tuple[str, ...]
    encoded: bool
    source: str
    transform: str = "none"
    left_out: str = ""
    name: str = ""
    test_share: float = 0.0
    metadata: Mapping[str, Any] = {}
    image_shape: tuple[int, int, int] | None = None


class ArraySplit:
    """Images in memory, in a random order that is always the same.

    Args:
        place: Where they are from, for messages.
        images: May be a view of another layout; each is made contiguous on its way.
        labels: One for each image.
    """

    def __init__(
        self,
        place: str,
        images: UInt8[np.ndarray, "image row col rgb"],
        labels: Int[np.ndarray, "image"],
    ):
        self._place = place
        self._images = images
        self._labels = labels
        self._order = shuffled(len(labels))
        digest = hashlib.sha256(np.ascontiguousarray(labels, np.int64).tobytes())
        for image in images:
            digest.update(np.ascontiguousarray(image).tobytes())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def part(self, start: int, stop: int) -> Iterator[RawImage]:
        """Some images in a row."""
        for index in self._order[start:stop].tolist():
            image = np.ascontiguousarray(self._images[index])
            place = f"{self._place}, image {index}"
            yield RawImage(place, image, int(self._labels[index]))


class FilesSplit:
    """Image files with labels, in a random order that is always the same."""

    def __init__(self, files: FileSet, labels: Int[np.ndarray, "image"]):
        order = shuffled(len(labels))
        self._files = files.take(order.tolist())
        self._labels = labels[order]
        digest = hashlib.sha256(np.ascontiguousarray(labels, np.int64).tobytes())
        digest.update(files.identity().encode())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._labels)

    def hold_out(self, share: float) -> "tuple[FilesSplit, FilesSplit | None]":
        """The rest, and a share of each label's images; None where that is no image.

        Which ones depends on the files' names, so that a new file moves few others.

        Args:
            share: Up to one half. Each label has its share of images, rounded up or
                down so that the sum is right, and keeps one at least.
        """
        digests = [hashlib.sha256(name.encode()).digest() for name in self._files.names]
        in_turn = np.array(sorted(range(len(self)), key=digests.__getitem__))
        counts = np.bincount(self._labels)
        sums = np.concatenate([[0], np.cumsum(counts)])
        wanted = np.diff(np.floor(sums * share + 0.5)).astype(int)
        test = np.zeros(len(self), bool)
        for label, number in enumerate(np.minimum(wanted, counts - 1).clip(0)):
            test[in_turn[self._labels[in_turn] == label][:number]] = True
        if not test.any():
            return self, None
        by_name = np.argsort(np.array(self._files.names), kind="stable")
        train, held = (by_name[test[by_name] == yes] for yes in (False, True))
        return self._take(train), self._take(held)

    def _take(self, index: Int[np.ndarray, "some"]) -> "FilesSplit":
        return FilesSplit(self._files.take(index.tolist()), self._labels[index])

    def part(self, start: int, stop: int) -> "FilesPart":
        """Some images in a row, which can be pickled."""
        files = self._files.take(range(start, min(stop, len(self))))
        return FilesPart(files, tuple(self._labels[start:stop].tolist()))


@dataclass(frozen=True)
class FilesPart:
    """Image files in a row, which are read when they are iterated over."""

    files: FileSet
    labels: tuple[int, ...]

    def __iter__(self) -> Iterator[RawImage]:
        for (name, content), label in zip(self.files.read(), self.labels, strict=True):
            yield RawImage(self.files.place(name), content, label)


def shuffled(length: int) -> Int64[np.ndarray, "record"]:
    """A random order that is always the same, so that parts of splits are fair samples.

    Raw bits and a stable sort, because NumPy keeps both for ever.
    """
    stream = np.random.Philox(np.random.SeedSequence(0))
    return np.argsort(stream.random_raw(length), kind="stable")
