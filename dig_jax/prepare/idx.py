"""IDX files, in which the whole MNIST family is handed out: images and labels.

A file is two zero bytes, the type of its numbers, how many axes they have, the length
of each axis, and the numbers, big-endian; often gzipped. Four of them make a data set.
"""

import gzip
import hashlib
import io
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from dig_jax.errors import InputError
from dig_jax.files.reading import readable
from dig_jax.files.shown import printable
from dig_jax.prepare.archives import open_files
from dig_jax.prepare.splits import ArraySplit, RawDataset

MAX_BYTES = 2**30
"""Of a file, and of what it unpacks to; EMNIST's largest has 547 MB."""

SIZE = (28, 28)
"""Rows and columns of the images of all KNOWN_SETS."""
ROLES = ("train images", "train labels", "test images", "test labels")
_NAME = re.compile(
    r"(?P<of>.*?)[-_.]?(?P<split>train|t10k|test)[-_.](?P<what>images|labels)"
    r"[-_.]idx\d[-_.](?:ubyte|int)(?:\.gz)?",
    re.IGNORECASE,
)
_USUAL = tuple(
    f"{split}-{what}-ubyte.gz"
    for split in ("train", "t10k")
    for what in ("images-idx3", "labels-idx1")
)
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class KnownSet(NamedTuple):
    """A data set whose classes and files are known.

    Attributes:
        class_names: By label.
        packed: MD5 of the four gzipped files as their authors offer them, by ROLES.
        unpacked: MD5 of what is in them; none where nobody has published it.
    """

    class_names: tuple[str, ...]
    packed: tuple[str, ...]
    unpacked: tuple[str, ...] = ()


KNOWN_SETS: Mapping[str, KnownSet] = {
    "fashion_mnist": KnownSet(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        packed=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        unpacked=(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    "kmnist": KnownSet(
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        packed=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
    "mnist": KnownSet(
        tuple(str(digit) for digit in range(10)),
        packed=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        unpacked=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
}


class _File(NamedTuple):
    place: str
    packed: str  # MD5 of the file; "" if it is not gzipped
    unpacked: str
    numbers: np.ndarray


def open_idx(
    source: Path, *, called: str = "", class_names: tuple[str, ...] = ()
) -> RawDataset:
    """Images and labels in memory, from a folder, zip or tar of four IDX files.

    EMNIST's images, which are stored column by column, are turned; labels that start
    at 1, as those of its letters, start at 0. Of QMNIST's labels the class is taken.

    Args:
        source: Where the files are, at any depth, gzipped or not, by their usual names:
            MNIST's (`train-images-idx3-ubyte.gz`, `t10k-labels.idx1-ubyte`), EMNIST's
            (`emnist-letters-test-images-idx3-ubyte.gz`), QMNIST's
            (`qmnist-train-labels-idx2-int.gz`).
        called: A name in KNOWN_SETS, whose files and classes are known; or another.
        class_names: A name for each label; those of KNOWN_SETS, or numbers, if none.

    Raises:
        InputError: A file is missing, there twice, damaged, or not what its name says;
            or images, labels and class names do not fit each other.
    """
    of, files = _find(source)
    train, test = (
        _join(files[f"{split} images"], files[f"{split} labels"])
        for split in ("train", "test")
    )
    rows, cols = train[0].shape[1:]
    if (rows, cols) != test[0].shape[1:]:
        raise InputError(
            f"{files['test images'].place} must have images of {rows} x {cols}, as "
            f"{files['train images'].place} has, and has {_axes(test[0].shape[1:])}."
        )
    known = KNOWN_SETS.get(called)
    if known and (rows, cols) != SIZE:
        raise InputError(
            f"{files['train images'].place} must have images of {_axes(SIZE)} to be "
            f"{called}, and has {rows} x {cols}."
        )
    said = _compare(called, files)
    class_names = class_names or (known.class_names if known else ())
    first = int(min(train[1].min(), test[1].min()))
    if first == 1:
        said += "; labels from 1 on became labels from 0 on"
    splits = {}
    for split, (images, labels) in (("train", train), ("test", test)):
        labels = labels - (first == 1)
        _check_labels(labels, len(class_names), files[f"{split} labels"].place)
        if of.startswith("emnist"):
            images = images.transpose(0, 2, 1)
        images, place = images[..., None], files[f"{split} images"].place
        splits[split] = ArraySplit(place, images, labels)
    if of.startswith("emnist"):
        said += "; rows and columns exchanged, as EMNIST stores them"
    num_classes = 1 + int(max(train[1].max(), test[1].max())) - (first == 1)
    return RawDataset(
        splits=splits,
        class_names=class_names or tuple(str(label) for label in range(num_classes)),
        encoded=False,
        source=said,
        image_shape=(rows, cols, 1),
    )


def _find(source: Path) -> tuple[str, dict[str, _File]]:
    """What the files' names begin with, and the files by ROLES."""
    files = open_files(source, max_file_bytes=MAX_BYTES)
    candidates: dict[str, list[int]] = {role: [] for role in ROLES}
    of = set()
    for index, name in enumerate(files.names):
        named = _NAME.fullmatch(PurePosixPath(name).name)
        if named:
            split = "train" if named["split"].lower() == "train" else "test"
            candidates[f"{split} {named['what'].lower()}"].append(index)
            of.add(named["of"].lower())
    missing = [role for role, found in candidates.items() if not found]
    if missing:
        raise InputError(
            f"--source needs four IDX files, such as {', '.join(_USUAL)}; {source} "
            f"lacks {', '.join(missing)}."
        )
    if len(of) > 1:
        names = ", ".join(sorted(printable(name) or "no name" for name in of))
        raise InputError(
            f"{source} must hold the IDX files of one data set, and holds those of "
            f"{names}: put each one's files into a folder of its own."
        )
    chosen = {}
    for role, indices in candidates.items():
        found = [_read(files.place(n), data) for n, data in files.take(indices).read()]
        if len({file.unpacked for file in found}) > 1:
            places = ", ".join(file.place for file in found)
            raise InputError(
                f"{source} must hold the {role} once, and holds files that differ: "
                f"{places}."
            )
        # Unpacked beside its .gz: the .gz is what checksums are published of.
        chosen[role] = max(found, key=lambda file: bool(file.packed))
    return of.pop(), chosen


def _read(place: str, data: bytes) -> _File:
    with readable(place, "is no IDX file that can be read"):
        is_packed = data[:2] == b"\x1f\x8b"
        stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if is_packed else None
        numbers, unpacked = _parse(stream or io.BytesIO(data))
    return _File(place, _md5(data) if is_packed else "", unpacked, numbers)


def _parse(stream: io.BufferedIOBase) -> tuple[np.ndarray, str]:
    """The numbers of an IDX file, and the MD5 of all of it."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise ValueError(
            f"it must start with two zero bytes, the type of its numbers and how many "
            f"axes they have, and starts with {magic.hex(' ') or 'nothing'}"
        )
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise EOFError("it ends within the lengths of its axes")
    shape = struct.unpack(f">{magic[3]}I", lengths)
    dtype = np.dtype(_TYPES[magic[2]])
    size = dtype.itemsize * math.prod(shape)
    if size > MAX_BYTES:
        raise ValueError(f"it declares {size} bytes, at most {MAX_BYTES} are read")
    content = stream.read(size + 1)
    if len(content) != size:
        there = "more" if len(content) > size else f"{len(content)}"
        raise ValueError(
            f"it declares {size} bytes of numbers ({_axes(shape)}) and has {there}"
        )
    numbers = np.frombuffer(content, dtype).reshape(shape)
    return numbers, _md5(magic, lengths, content)


def _md5(*parts: bytes) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _axes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _join(
    images: _File, labels: _File
) -> tuple[UInt8[np.ndarray, "image row col"], Int64[np.ndarray, "image"]]:
    """Images and their labels, if the files hold that."""
    pixels, numbers = images.numbers, labels.numbers
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        hint = " Are images and labels swapped?" if pixels.ndim == 1 else ""
        raise InputError(
            f"{images.place} must hold images, bytes with three axes, and holds "
            f"{pixels.dtype.name} with {pixels.ndim} ({_axes(pixels.shape)}).{hint}"
        )
    of_qmnist = numbers.ndim == 2 and numbers.dtype == np.dtype(">i4")
    if numbers.dtype.kind == "f" or not (numbers.ndim == 1 or of_qmnist):
        hint = " Are images and labels swapped?" if numbers.ndim == 3 else ""
        raise InputError(
            f"{labels.place} must hold labels, whole numbers with one axis (or "
            f"QMNIST's with two), and holds {numbers.dtype.name} with {numbers.ndim} "
            f"({_axes(numbers.shape)}).{hint}"
        )
    if not pixels.size or not numbers.size:
        raise InputError(f"{images.place} and {labels.place} hold no images.")
    if len(pixels) != len(numbers):
        raise InputError(
            f"{labels.place} must hold a label for each image of {images.place}, and "
            f"holds {len(numbers)} for {len(pixels)} images."
        )
    return pixels, (numbers[:, 0] if of_qmnist else numbers).astype(np.int64)


def _check_labels(
    labels: Int64[np.ndarray, "image"], num_names: int, place: str
) -> None:
    """Raise InputError unless labels lie in a range that classes can have."""
    low, high = int(labels.min()), int(labels.max())
    most = num_names or 2**16
    if low < 0 or high >= most:
        whose = f"the {num_names} class names" if num_names else "classes"
        raise InputError(
            f"{place} must have labels from 0 to {most - 1}, for {whose}, and has "
            f"labels from {low} to {high}."
        )


def _compare(called: str, files: Mapping[str, _File]) -> str:
    """What the files are, and whether they are those that were published."""
    if called not in KNOWN_SETS:
        return "four IDX files"
    known = KNOWN_SETS[called]
    unpacked = known.unpacked or ("",) * len(ROLES)
    others, untold = [], []
    for role, *published in zip(ROLES, known.packed, unpacked, strict=True):
        file = files[role]
        if {file.packed, file.unpacked} & set(published) - {""}:
            continue
        (others if file.packed or all(published) else untold).append(role)
    said = f"{called}, four IDX files"
    if not others + untold:
        return f"{said} as published (MD5)"
    parts = []
    if others:
        parts.append(f"other {', '.join(others)} than were published (MD5)")
    if untold:
        parts.append(
            f"{', '.join(untold)} not compared: checksums are known of the .gz alone"
        )
    return f"{said}, {'; '.join(parts)}"
