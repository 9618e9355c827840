"""CIFAR-10's binary version: `cifar-10-binary.tar.gz`, or the folder in it.

Each record is a byte of label and 3,072 of pixels: a 32x32 plane each of R, G and B.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dig_jax.errors import InputError
from dig_jax.prepare.archives import read_tar_stream
from dig_jax.prepare.splits import ArraySplit, RawDataset

_RECORD_BYTES = 1 + 32 * 32 * 3
_MAX_TOTAL_BYTES = 512 * 2**20
_NAMES_FILE = "batches.meta.txt"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_FILES = ("test_batch.bin",)
_FILES = (*_TRAIN_FILES, *_TEST_FILES, _NAMES_FILE)
_PICKLED = re.compile(r"(data_batch_\d|test_batch|batches\.meta)")


def open_cifar10(source: Path) -> RawDataset:
    """CIFAR-10 in memory (some 180 MB), from its archive or its folder.

    Raises:
        InputError: Files are missing or of another length, or are the pickled ones of
            the Python version, which could run code.
    """
    files = dict(_read_folder(source) if source.is_dir() else _read_archive(source))
    missing = [name for name in _FILES if name not in files]
    if missing:
        raise InputError(
            f"{source} must hold {', '.join(_FILES)}, as cifar-10-binary.tar.gz does, "
            f"and lacks {', '.join(missing)}."
        )
    text = files[_NAMES_FILE].decode("ascii", "replace")
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != 10:
        raise InputError(f"{_NAMES_FILE} must name 10 classes, and names {len(names)}.")
    return RawDataset(
        splits={
            "train": _read_split(files, _TRAIN_FILES, source),
            "test": _read_split(files, _TEST_FILES, source),
        },
        class_names=names,
        encoded=False,
        source="CIFAR-10, binary version",
    )


def _read_archive(source: Path) -> Iterator[tuple[str, bytes]]:
    if not source.is_file():
        raise InputError(
            f"--source needs cifar-10-binary.tar.gz or the folder in it, got {source}, "
            f"which does not exist."
        )
    wanted = set(_FILES)

    def choose(name: str) -> bool:
        _refuse_pickles(name, source)
        return name in wanted

    yield from read_tar_stream(source, choose, max_total_bytes=_MAX_TOTAL_BYTES)


def _read_folder(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(source.rglob("*")):
        _refuse_pickles(path.name, source)
        if path.name in _FILES and path.is_file():
            yield path.name, path.read_bytes()


def _refuse_pickles(name: str, source: Path) -> None:
    if _PICKLED.fullmatch(name):
        raise InputError(
            f"{source} is CIFAR-10's Python version, whose pickled files ({name}) can "
            f"run any code and are not read. Take the binary version, "
            f"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz."
        )


def _read_split(
    files: dict[str, bytes], names: tuple[str, ...], source: Path
) -> ArraySplit:
    batches = []
    for name in names:
        content = np.frombuffer(files[name], np.uint8)
        if not len(content) or len(content) % _RECORD_BYTES:
            raise InputError(
                f"{name} in {source} must hold records of {_RECORD_BYTES} bytes, and "
                f"has {len(content)} bytes."
            )
        batches.append(content.reshape(-1, _RECORD_BYTES))
    records = np.concatenate(batches)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise InputError(f"{source} has a label {labels.max()}, above 9.")
    planes = records[:, 1:].reshape(-1, 3, 32, 32)  # [image, rgb, row, col]
    return ArraySplit(str(source), planes.transpose(0, 2, 3, 1), labels)
