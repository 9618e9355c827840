"""Files of a folder, a zip or a tar, read by name and never extracted.

So no name in an archive can make a file anywhere. Links and names that lead out of the
archive are refused all the same, as are sizes that no honest archive declares.
"""

import hashlib
import os
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from dig_jax.errors import InputError

MAX_FILE_BYTES = 256 * 2**20
# Deflated images hardly shrink; a megabyte of zeros shrinks a thousandfold.
_MAX_RATIO = 200
_FREE_BYTES = 2**20
# What archives raise that are damaged. RuntimeError is zipfile's word for a password.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class FileSet:
    """Some files of one folder, zip or uncompressed tar, in a fixed order.

    Attributes:
        root: The folder or archive.
        kind: Which of them it is.
        names: Relative names with forward slashes, composed Unicode (NFC), each once.
        members: The same as the folder or archive spells them.
        sizes: In bytes.
        offsets: Where the content starts in a tar; zeros elsewhere.
    """

    root: Path
    kind: Literal["folder", "zip", "tar"]
    names: tuple[str, ...]
    members: tuple[str, ...]
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> "FileSet":
        """The files at these indices, in their order."""
        return FileSet(
            self.root,
            self.kind,
            tuple(self.names[i] for i in indices),
            tuple(self.members[i] for i in indices),
            tuple(self.sizes[i] for i in indices),
            tuple(self.offsets[i] for i in indices),
        )

    def under(self, folder: str) -> "FileSet":
        """The files of a subfolder."""
        prefix = folder + "/"
        return self.take([i for i, n in enumerate(self.names) if n.startswith(prefix)])

    def identity(self) -> str:
        """A digest of names and sizes, in their order."""
        digest = hashlib.sha256()
        for name, size in zip(self.names, self.sizes, strict=True):
            digest.update(f"{name}\0{size}\n".encode())
        return digest.hexdigest()

    def place(self, name: str) -> str:
        """The file's name with its folder or archive, for messages."""
        return str(self.root / name) if self.kind == "folder" else f"{self.root}:{name}"

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Each file's name and content.

        Raises:
            InputError: A file is gone, has another size, or cannot be unpacked.
        """
        readers: dict[str, Callable[[], Iterator[bytes]]] = {
            "folder": self._read_folder,
            "zip": self._read_zip,
            "tar": self._read_tar,
        }
        contents = readers[self.kind]()
        for name, size in zip(self.names, self.sizes, strict=True):
            try:
                content = next(contents)
            except UNREADABLE as error:
                raise InputError(
                    f"{self.place(name)} cannot be read: {error}."
                ) from error
            if len(content) != size:
                raise InputError(
                    f"{self.place(name)} had {size} bytes and now has {len(content)}."
                )
            yield name, content

    def _read_folder(self) -> Iterator[bytes]:
        for member in self.members:
            yield (self.root / member).read_bytes()

    def _read_zip(self) -> Iterator[bytes]:
        with zipfile.ZipFile(self.root) as archive:
            for member in self.members:
                yield archive.read(member)

    def _read_tar(self) -> Iterator[bytes]:
        with open(self.root, "rb") as file:
            for offset, size in zip(self.offsets, self.sizes, strict=True):
                file.seek(offset)
                yield file.read(size)


def open_files(source: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> FileSet:
    """All files of a folder (at any depth), a zip or an uncompressed tar, by name.

    Raises:
        InputError: There is no such folder or archive, or it is not one that can be
            trusted: links, names that lead out of it, sizes beyond all measure.
    """
    if source.is_dir():
        return _list_folder(source, max_file_bytes)
    if not source.is_file():
        raise InputError(
            f"--source needs a file or folder, got {source}, which does not exist."
        )
    if zipfile.is_zipfile(source):
        return _list_zip(source, max_file_bytes)
    if tarfile.is_tarfile(source):
        return _list_tar(source, max_file_bytes)
    raise InputError(f"{source} must be a folder, a zip or a tar, and is none.")


def check_zip(archive: zipfile.ZipFile, place: str, *, max_file_bytes: int) -> None:
    """Raise InputError unless all members of a zip have sane names and sizes."""
    for member in archive.infolist():
        check_name(member.filename, place)
        if member.external_attr >> 16 & 0o170000 == 0o120000:
            raise InputError(f"{place} holds a link, {member.filename!r}.")
        _check_size(member.filename, place, member.file_size, max_file_bytes)
        if member.file_size > _MAX_RATIO * member.compress_size + _FREE_BYTES:
            raise InputError(
                f"{place}: {member.filename!r} would grow from {member.compress_size} "
                f"to {member.file_size} bytes, which no image does."
            )


def read_tar_stream(
    source: Path, wanted: Callable[[str], bool], *, max_total_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """The wanted files of a tar that may be compressed: their last names, contents.

    Raises:
        InputError: As `open_files`, or it holds more than max_total_bytes.
    """
    total = 0
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                _check_member(member, source)
                total += member.size
                if total > max_total_bytes:
                    raise InputError(
                        f"{source} must hold at most {max_total_bytes} bytes, and "
                        f"declares {total} with {member.name!r}."
                    )
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and wanted(name):
                    yield name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{source} is no tar that can be read: {error}.") from error


def check_name(name: str, place: str) -> None:
    """Raise InputError if a member's name leads out of its archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
        raise InputError(f"{place} holds a name that leads out of it, {name!r}.")


def tar_members(
    file: tarfile.TarFile, place: Path | str, max_file_bytes: int
) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar, each checked."""
    for member in file:
        _check_member(member, place)
        _check_size(member.name, str(place), member.size, max_file_bytes)
        if member.isfile():
            yield member


def _list_folder(source: Path, max_file_bytes: int) -> FileSet:
    found: dict[str, int] = {}
    seen: set[str] = set()
    # Data folders are often links into another disk; a link to its own parent is not.
    for folder, subfolders, files in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            raise InputError(f"{folder} is a link to a folder that was read before.")
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in files:
            path = Path(folder, file)
            member = path.relative_to(source).as_posix()
            if not path.is_file():
                raise InputError(f"{path} must be a file, and is a link to nothing.")
            found[member] = path.stat().st_size
            _check_size(member, str(source), found[member], max_file_bytes)
    return _make_set(source, "folder", found)


def _list_zip(source: Path, max_file_bytes: int) -> FileSet:
    try:
        with zipfile.ZipFile(source) as archive:
            check_zip(archive, str(source), max_file_bytes=max_file_bytes)
            members = [
                m for m in archive.infolist() if not m.filename.endswith(("/", "\\"))
            ]
    except zipfile.BadZipFile as error:
        raise InputError(f"{source} is no zip that can be read: {error}.") from error
    sizes = {m.filename: m.file_size for m in members}
    return _make_set(
        source, "zip", sizes, spelled={m.filename: _zip_name(m) for m in members}
    )


def _list_tar(source: Path, max_file_bytes: int) -> FileSet:
    try:
        with tarfile.open(source, "r:") as archive:
            members = list(tar_members(archive, source, max_file_bytes))
    except tarfile.TarError as error:
        raise InputError(
            f"{source} must be a tar without compression (unpack it once with gunzip "
            f"or the like): {error}."
        ) from error
    sizes = {member.name: member.size for member in members}
    return _make_set(source, "tar", sizes, {m.name: m.offset_data for m in members})


def _make_set(
    source: Path,
    kind: Literal["folder", "zip", "tar"],
    sizes: dict[str, int],
    offsets: dict[str, int] | None = None,
    *,
    spelled: dict[str, str] | None = None,
) -> FileSet:
    """The files that are not the operating system's own, by sizes of their members.

    Raises:
        InputError: Two files have one name.
    """
    member_of: dict[str, str] = {}
    for member in sizes:
        name = normalize_name(spelled[member] if spelled else member)
        if is_hidden(name):
            continue
        if name in member_of:
            raise InputError(
                f"{source} must hold each name once, and has {name!r} twice, as "
                f"{member_of[name]!r} and {member!r}."
            )
        member_of[name] = member
    names = sorted(member_of)
    members = tuple(member_of[name] for name in names)
    return FileSet(
        source,
        kind,
        tuple(names),
        members,
        tuple(sizes[member] for member in members),
        tuple(offsets[member] if offsets else 0 for member in members),
    )


def normalize_name(name: str) -> str:
    """A file's name as every system's spelling of it: a/b, composed Unicode (NFC)."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return PurePosixPath(name).as_posix()


def _zip_name(member: zipfile.ZipInfo) -> str:
    """A member's name; macOS writes UTF-8 without saying so, as zipfile needs it."""
    says_utf8 = member.flag_bits & 0x800
    try:
        return member.filename if says_utf8 else _as_utf8(member.filename)
    except UnicodeError:
        return member.filename


def _as_utf8(name: str) -> str:
    return name.encode("cp437").decode("utf-8")


def is_hidden(name: str) -> bool:
    """Whether it is a file of the operating system's, such as .DS_Store."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _check_member(member: tarfile.TarInfo, place: Path | str) -> None:
    check_name(member.name, str(place))
    if not (member.isfile() or member.isdir()):
        raise InputError(f"{place} holds a link or device, {member.name!r}.")


def _check_size(name: str, place: str, size: int, limit: int) -> None:
    if size > limit:
        raise InputError(
            f"{place}: {name!r} has {size} bytes, more than the {limit} that are "
            f"expected of any file there."
        )
