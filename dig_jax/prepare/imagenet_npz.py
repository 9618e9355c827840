"""Downsampled ImageNet at 64x64 (arXiv:1707.08819): zips of npz files, read as streams.

Each npz holds data uint8 [image, 12288], a 64x64 plane each of R, G and B, and labels
from 1 on. The authors shuffled them, so they are written in the order of the files.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.npz import Header, NpzFile
from dig_jax.prepare.archives import UNREADABLE, check_zip
from dig_jax.prepare.splits import RawDataset, RawImage

_SIDE = 64
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_NUM_CLASSES = 1000
_MAX_FILE_BYTES = 4 * 2**30
_MAX_LABEL_BYTES = 64 * 2**20
_NPZ_NAME = re.compile(r"(train|val)_data(?:_batch_(\d+))?\.npz")
_PICKLE_NAME = re.compile(r"(train|val)_data(_batch_\d+)?")


class ArchiveFile(NamedTuple):
    """One npz file, maybe in a zip.

    Attributes:
        archive: The zip, or the npz itself.
        member: Name in the zip; "" without one.
    """

    archive: Path
    member: str

    @property
    def name(self) -> str:
        """Its own name."""
        return PurePosixPath(self.member or self.archive.name).name

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}" if self.member else str(self.archive)


class NpzSplit:
    """The images of some npz files, one after another.

    Only labels are in memory. A part that begins where the last one ended goes on
    reading there; any other reads its file from the start.
    """

    def __init__(self, files: list[ArchiveFile]):
        self._files = files
        self._labels = [_read_labels(file) for file in files]
        self._ends = np.cumsum([len(labels) for labels in self._labels])
        self._stream: Iterator[RawImage] = iter(())
        self._position = -1
        digest = hashlib.sha256()
        for file, labels in zip(files, self._labels, strict=True):
            digest.update(f"{file.name} {file.archive.stat().st_size}\n".encode())
            digest.update(labels.tobytes())
        self.identity = digest.hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def part(self, start: int, stop: int) -> Iterator[RawImage]:
        """Some images in a row."""
        if start != self._position:
            self._stream = self._read_from(start)
        for position in range(start, min(stop, len(self))):
            self._position = -1
            image = next(self._stream)
            self._position = position + 1
            yield image

    def _read_from(self, start: int) -> Iterator[RawImage]:
        first = int(np.searchsorted(self._ends, start, side="right"))
        skip = start - int(self._ends[first - 1]) if first else start
        for file, labels in zip(self._files[first:], self._labels[first:], strict=True):
            images = _read_images(file, len(labels))
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                if index >= skip:
                    yield RawImage(f"{file.name}, image {index}", image, int(label))
            skip = 0


def find_npz_archives(source: Path) -> dict[str, list[ArchiveFile]]:
    """The npz files of each split in a folder, in their order; none if it has none.

    Raises:
        InputError: There are pickled ones, or train or val is missing.
    """
    found: dict[str, list[tuple[int, ArchiveFile]]] = {}
    for path in sorted(source.iterdir()):
        for file in _list_npz(path):
            match = _NPZ_NAME.fullmatch(file.name)
            if match:
                found.setdefault(match[1], []).append((int(match[2] or 0), file))
    if found and set(found) != {"train", "val"}:
        raise InputError(
            f"{source} needs npz files for train and val, and has {', '.join(found)}."
        )
    for split, files in found.items():
        numbers = [number for number, _ in sorted(files)]
        if numbers not in ([0], list(range(1, len(numbers) + 1))):
            raise InputError(
                f"{source} needs each {split}_data_batch_N.npz once, N from 1 on, and "
                f"has N = {', '.join(map(str, numbers))}."
            )
    return {
        split: [file for _, file in sorted(files)] for split, files in found.items()
    }


def open_npz_archives(
    archives: dict[str, list[ArchiveFile]], synsets: tuple[str, ...]
) -> RawDataset:
    """Downsampled ImageNet from its npz files.

    Raises:
        InputError: A file is not what it should be.
    """
    return RawDataset(
        splits={
            "train": NpzSplit(archives["train"]),
            "validation": NpzSplit(archives["val"]),
        },
        class_names=synsets,
        encoded=False,
        source="downsampled ImageNet 64x64, npz version",
        transform="box",
    )


def _list_npz(path: Path) -> Iterator[ArchiveFile]:
    if path.suffix == ".npz":
        yield ArchiveFile(path, "")
    if path.suffix != ".zip" or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        check_zip(archive, str(path), max_file_bytes=_MAX_FILE_BYTES)
        for member in archive.namelist():
            if _PICKLE_NAME.fullmatch(PurePosixPath(member).name):
                raise InputError(
                    f"{path} is the pickled version of downsampled ImageNet, which can "
                    f"run any code and is not read ({member}). Take the npz version."
                )
            yield ArchiveFile(path, member)


@contextmanager
def _opened(file: ArchiveFile) -> Iterator[NpzFile]:
    """The npz file, out of its zip if it is in one."""
    with ExitStack() as stack:
        try:
            content = stack.enter_context(file.archive.open("rb"))
            if file.member:
                outer = stack.enter_context(zipfile.ZipFile(content))
                content = stack.enter_context(outer.open(file.member))
        except UNREADABLE as error:
            raise InputError(f"{file} cannot be read: {error}.") from error
        npz = NpzFile(content, str(file))
        stack.callback(npz.close)
        yield npz


def _read_labels(file: ArchiveFile) -> np.ndarray:
    """Labels from 0 on, int64."""
    with _opened(file) as npz:
        labels = npz.read(
            "labels", _check_labels, max_bytes=_MAX_LABEL_BYTES, limit="of labels"
        )
    labels = labels.astype(np.int64) - 1
    if labels.min() < 0 or labels.max() >= _NUM_CLASSES:
        raise InputError(
            f"{file} needs labels from 1 to {_NUM_CLASSES}, got labels "
            f"{labels.min() + 1}..{labels.max() + 1}."
        )
    return labels


def _read_images(file: ArchiveFile, num_images: int) -> Iterator[np.ndarray]:
    """Images uint8 [row, col, rgb], one after another."""
    with _opened(file) as npz:
        for row in npz.rows("data", partial(_check_data, num_images)):
            planes = row.reshape(3, _SIDE, _SIDE)
            yield np.ascontiguousarray(planes.transpose(1, 2, 0))


def _check_labels(header: Header) -> None:
    if len(header.shape) != 1 or header.dtype.kind not in "iu" or not header.shape[0]:
        raise ValueError("labels are whole numbers, one for each image")


def _check_data(num_images: int, header: Header) -> None:
    if header.shape != (num_images, _IMAGE_BYTES) or header.dtype != np.uint8:
        raise ValueError(
            f"data must be uint8 [image, {_IMAGE_BYTES}] for {num_images} labels"
        )
