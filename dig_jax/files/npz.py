"""The one reader of npz files, which may be anybody's: nothing is unpickled.

What an array declares is compared with what the file has and with what is asked of it
before memory is taken for it. Whatever zipfile, zlib and numpy raise becomes an
InputError that names the file.
"""

import contextlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import readable
from dig_jax.files.shown import printable

_MAX_HEADER_BYTES = 10_000
_MAX_ARRAYS = 1000
_CHUNK_BYTES = 2**20
# A zip's last record: signature, disks, members here and in all, directory, comment.
_END = struct.Struct("<4s4H2LH")
# Images seldom shrink tenfold, zeros a thousandfold; few zeros are read all the same.
_MAX_RATIO, _FREE_BYTES = 100, 2**26
# What numpy writes. bzip2 and LZMA unpack a block at a time, however long it becomes.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What an array declares of itself.

    Attributes:
        shape: Its lengths; for messages too.
        dtype: Of its numbers.
        fortran: Whether the first axis is the one that varies fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def num_bytes(self) -> int:
        """Of all numbers."""
        size = self.dtype.itemsize
        for length in self.shape:  # Python's integers: NumPy's would overflow
            size *= length
        return size

    def __str__(self) -> str:
        return f"{str(self.dtype)[:100]} {self.shape}"


Check = Callable[[Header], None]
"""Raises ValueError with what is wrong with a header, if it is not what is needed."""


def any_header(_: Header) -> None:
    """A `Check` for who looks at the array afterwards."""


class NpzFile:
    """An open npz file: which arrays it has, what they declare, and the arrays.

    Args:
        file: Its bytes, which can be sought in: a local file, a bucket's, a zip's.
        place: What messages call it.

    Attributes:
        names: Of its arrays, in their order.

    Raises:
        InputError: It is no npz, or cannot be read (encrypted, damaged, compressed in
            another way than numpy does); all methods do so too.
    """

    def __init__(self, file: Any, place: str) -> None:
        self.place, self._file = place, file
        with readable(self.place, "is no .npz that can be read"):
            self._num_bytes = file.seek(0, 2)
            self._zip = zipfile.ZipFile(file)
            members = self._zip.infolist()
            if len(members) > _MAX_ARRAYS:
                raise ValueError(f"{len(members)} arrays, at most {_MAX_ARRAYS} are")
            for member in members:
                if member.compress_type not in _COMPRESSIONS:
                    raise ValueError(
                        f"its compression {member.compress_type} is neither none nor "
                        "deflate, which numpy writes"
                    )
        found = (member.filename for member in members)
        self.names = tuple(n.removesuffix(".npy") for n in found if n.endswith(".npy"))

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def describe(self) -> str:
        """The names of its arrays, as text to show."""
        shown = [printable(name)[:40] for name in self.names[:10]]
        more = ["..."] * (len(self.names) > 10)
        return ", ".join(shown + more) or "none"

    def check_names(self) -> None:
        """Raise InputError if names are damaged or lost: a zip has them, and their
        number, twice.
        """
        with readable(self.place, "is no .npz that can be read"):
            members = self._zip.infolist()
            for member in members:
                self._zip.open(member).close()
            self._file.seek(-_END.size, 2)
            signature, _, _, _, count, _, _, _ = _END.unpack(self._file.read(_END.size))
            if signature == b"PK\x05\x06" and count != len(members):
                raise ValueError(f"of {count} arrays {len(members)} are left")

    def header(self, name: str) -> Header:
        """What an array declares; nothing of it is read."""
        with self._opened(name) as (_, header):
            return header

    def read(
        self, name: str, check: Check = any_header, *, max_bytes: int, limit: str
    ) -> np.ndarray:
        """One array, if it declares what is needed and no more than there is.

        Args:
            name: The array's.
            check: What is needed.
            max_bytes: The most that it may unpack to.
            limit: What sets the limit, for messages.
        """
        with self._opened(name) as (stream, header):
            self._check(name, header, check)
            size = header.num_bytes
            if size > max_bytes:
                needed = f"at most {max_bytes} bytes are read ({limit})"
                self._refuse(needed, name, header)
            self._check_size(name, header, stream.tell())
            member = self._zip.getinfo(f"{name}.npy")
            packed = min(member.compress_size, self._num_bytes)
            if size > _MAX_RATIO * packed + _FREE_BYTES:
                needed = f"{packed} bytes would grow beyond all measure (if that is "
                needed += "right, save it without compression, by numpy.savez)"
                self._refuse(needed, name, header)
            values = np.empty(size, np.uint8)
            for start in range(0, size, _CHUNK_BYTES):
                content = stream.read(min(_CHUNK_BYTES, size - start))
                values[start : start + len(content)] = np.frombuffer(content, np.uint8)
                if len(content) < min(_CHUNK_BYTES, size - start):
                    raise EOFError("it ends too early")
            order = "F" if header.fortran else "C"
            return values.view(header.dtype).reshape(header.shape, order=order)

    def rows(self, name: str, check: Check) -> Iterator[np.ndarray]:
        """The array along its first axis, one part after another in memory."""
        with self._opened(name) as (stream, header):
            self._check(name, header, check)
            self._check_size(name, header, stream.tell())
            if header.fortran or not header.shape:
                self._refuse("rows must follow one another", name, header)
            part = Header(header.shape[1:], header.dtype, False)
            for _ in range(header.shape[0]):
                content = stream.read(part.num_bytes)
                yield np.frombuffer(content, part.dtype).reshape(part.shape)

    def close(self) -> None:
        """Let go of the file, which stays open."""
        self._zip.close()

    def _check(self, name: str, header: Header, check: Check) -> None:
        if header.dtype.hasobject:
            self._refuse("Python objects are not read", name, header)
        if not header.dtype.itemsize or any(
            type(length) is not int or length < 0 for length in header.shape
        ):
            self._refuse("no array is like this", name, header)
        try:
            check(header)
        except ValueError as error:
            self._refuse(str(error), name, header)

    def _check_size(self, name: str, header: Header, start: int) -> None:
        """Raise InputError unless the array fills what the zip says is there."""
        size = self._zip.getinfo(f"{name}.npy").file_size - start
        if header.num_bytes != size:
            self._refuse(f"it has {size} bytes of numbers", name, header)

    def _refuse(self, needed: str, name: str, header: Header) -> NoReturn:
        raise InputError(
            f"{self.place}: {needed}, got {name} {header}, {header.num_bytes} bytes."
        )

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], Header]]:
        """The stream of an array's numbers, and what it declares."""
        with (
            readable(self.place, f"cannot be read, at {printable(name)}"),
            self._zip.open(f"{name}.npy") as stream,
        ):
            version = np.lib.format.read_magic(stream)
            if version not in _READ_HEADER:
                raise ValueError(f"it is of npy version {version}")
            shape, fortran, dtype = _READ_HEADER[version](
                stream, max_header_size=_MAX_HEADER_BYTES
            )
            yield stream, Header(shape, dtype, fortran)


@contextlib.contextmanager
def open_npz(path: AnyPath) -> Iterator[NpzFile]:
    """An npz file, open until the block ends.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}.") from error
        npz = NpzFile(file, str(path))
        opened.callback(npz.close)
        npz.check_names()
        yield npz
