"""The one reader of safetensors files, which may be anybody's.

What the header declares is compared with the file's size, and with what the reader
needs, before memory is taken for it (https://github.com/huggingface/safetensors: eight
bytes of the header's length, the header in JSON, the numbers).
"""

import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import parse_object, readable
from dig_jax.files.shown import printable

MAX_HEADER_BYTES = 2**23
WHAT = "is no whole file of safetensors"
METADATA = "__metadata__"
DTYPES = {
    "BOOL": np.bool_,
    **{f"U{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
    **{f"I{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


class Declared(NamedTuple):
    """What a tensor declares: its type, its shape, and where its bytes lie."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Check = Callable[[Mapping[str, Declared], Mapping[str, str]], None]
"""Raises InputError if these tensors, with this metadata, are not what is needed."""


class Tensors(NamedTuple):
    """Arrays by name, and what the file says of them."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def read_tensors(
    path: AnyPath, check: Check | None = None, advice: str = ""
) -> Tensors:
    """All tensors of a file.

    Args:
        path: The file.
        check: Looks at what is declared before anything of it is read.
        advice: What to do if it cannot be read.

    Raises:
        InputError: It cannot be read; or what `check` raises.
    """
    with readable(path, WHAT, advice), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(
                f"its header is of {length} bytes, the file of {size}, and at most "
                f"{MAX_HEADER_BYTES} are read"
            )
        header = parse_object(file.read(length))
        metadata = _read_metadata(header.pop(METADATA, {}))
        declared = {name: _read_entry(name, entry) for name, entry in header.items()}
        _check_places(declared, size - 8 - length)
        if check is not None:
            check(declared, metadata)
        arrays = {}
        for name in sorted(declared, key=lambda name: declared[name].start):
            dtype, shape, start, end = declared[name]
            values = np.empty(end - start, np.uint8)
            if end > start and file.readinto(values.data) != len(values):
                raise EOFError("it ends too early")
            arrays[name] = values.view(dtype).reshape(shape)
    return Tensors({name: arrays[name] for name in declared}, metadata)


def _read_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its metadata are not text by name")
    return metadata


def _read_entry(name: str, entry: Any) -> Declared:
    """A tensor's entry in the header, whatever JSON that is."""
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in DTYPES:
        raise ValueError(
            f"{printable(name)[:80]} is of {printable(kind)[:20]}, none of "
            f"{', '.join(DTYPES)}"
        )
    numbers = (*shape, start, end)
    if any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
        raise ValueError(f"{printable(name)[:80]} has lengths that are none")
    dtype = np.dtype(DTYPES[kind])
    if math.prod(shape) * dtype.itemsize != end - start or len(shape) > 32:
        raise ValueError(
            f"{printable(name)[:80]} is {dtype}{shape} in {end - start} bytes"
        )
    return Declared(dtype, tuple(shape), start, end)


def _check_places(declared: Mapping[str, Declared], num_bytes: int) -> None:
    """Raise ValueError unless the tensors fill the bytes, one after the other."""
    place = 0
    for start, end in sorted((one.start, one.end) for one in declared.values()):
        if start != place:
            raise ValueError(f"its tensors do not follow one another at byte {place}")
        place = end
    if place != num_bytes:
        raise ValueError(f"its tensors are of {place} bytes, and {num_bytes} are there")


def digest_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 in hex of names, types, shapes and values, in whatever file they are."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype} {values.shape};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
