"""Files of one JSON object a line, each line with a checksum.

A process may be killed, or a disk be full, as a line is written; a bit may flip later.
What is left of a line is told and set aside, and never glued to the next. Lines without
a checksum are those of versions before there was one: they stand before the others.
"""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from dig_jax.files.paths import AnyPath, is_remote, naming_file, write_whole
from dig_jax.files.reading import UNREADABLE, parse_object

_BEFORE, _DIGITS, _AFTER = b', "crc32": "', 8, b'"}'
_END_BYTES = len(_BEFORE) + _DIGITS + len(_AFTER)
_MAX_WRONG = 1
"""Of the bytes around a checksum: a flipped bit does not hide that it is one."""
_told: set[tuple[str, int]] = set()
"""Damage that this process has warned of: files are read again and again."""


class _Line(NamedTuple):
    """A line, without its end; its record is None if it is damaged."""

    content: bytes
    record: dict[str, Any] | None


def to_line(record: Mapping[str, Any]) -> str:
    """A record as a line with its checksum, which follows the last of its entries."""
    text = json.dumps(record)
    assert record, "a record without entries"
    assert "crc32" not in record, text
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def read_lines(path: AnyPath) -> list[dict[str, Any]]:
    """The records of a file, in order; [] where there is none.

    A line that is damaged, or not whole yet, is left out with a warning.
    """
    if not path.is_file():
        return []
    lines = _parse(path.read_bytes())
    for number, line in enumerate(lines, start=1):
        if line.record is None:
            _tell_once(path, line, f"line {number} is damaged or not whole: left out")
    return [line.record for line in lines if line.record is not None]


def append_line(path: AnyPath, record: Mapping[str, Any]) -> None:
    """Add a record to a file, which is made if it is missing; on disk when it returns.

    In a bucket the whole file is written anew.

    Raises:
        OSError: The disk is full; what was there stays as it was.
    """
    data = to_line(record).encode()
    if is_remote(path):
        set_damage_aside(path)
        before = path.read_bytes() if path.exists() else b""
        write_whole(path, before + data)
        return
    with naming_file(path), Path(path).open("a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            size = _mend_end(path, file.fileno())
        try:
            written = 0
            while written < len(data):
                written += os.write(file.fileno(), data[written:])
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def set_damage_aside(path: AnyPath) -> None:
    """Move what cannot be read to a file beside it, NAME.damaged, and say so.

    For the one writer of a file, before it writes the whole of it anew.
    """
    data = path.read_bytes() if path.is_file() else b""
    lines = _parse(data)
    kept = b"".join(line.content + b"\n" for line in lines if line.record is not None)
    if kept != data:
        _keep_damaged(path, [line for line in lines if line.record is None])
        write_whole(path, kept)


def _mend_end(path: AnyPath, descriptor: int) -> int:
    """End the last line, or set it aside if it is not whole; returns the size then."""
    data = Path(path).read_bytes()
    last = _parse(data)[-1]
    if last.record is None:
        _keep_damaged(path, [last])
        os.ftruncate(descriptor, len(data) - len(last.content))
        return len(data) - len(last.content)
    os.write(descriptor, b"\n")
    return len(data) + 1


def _keep_damaged(path: AnyPath, lines: list[_Line]) -> None:
    if not lines:
        return
    aside = path.parent / f"{path.name}.damaged"
    before = aside.read_bytes() if aside.is_file() else b""
    write_whole(aside, before + b"".join(line.content + b"\n" for line in lines))
    for line in lines:
        _tell_once(aside, line, f"holds a line of {path.name} that was not whole")


def _tell_once(path: AnyPath, line: _Line, what: str) -> None:
    told = (os.fspath(path), zlib.crc32(line.content))
    if told not in _told:
        _told.add(told)
        logging.warning("%s: %s.", path, what)


def _parse(data: bytes) -> list[_Line]:
    """The lines; after one with a checksum, one without has lost it."""
    lines, checked = [], False
    for content in data.split(b"\n"):
        if content.strip():
            record, has_checksum = _read(content)
            checked |= has_checksum
            lines.append(_Line(content, None if checked > has_checksum else record))
    return lines


def _read(content: bytes) -> tuple[dict[str, Any] | None, bool]:
    """What a line holds, or None if it is damaged; and whether it has a checksum."""
    content = content.rstrip(b"\r")
    text, end = content[:-_END_BYTES] + b"}", content[-_END_BYTES:]
    around = end[: len(_BEFORE)] + end[len(_BEFORE) + _DIGITS :]
    wrong = sum(a != b for a, b in zip(around, _BEFORE + _AFTER, strict=False))
    checked = len(end) == _END_BYTES and wrong <= _MAX_WRONG
    if not checked:
        text = content
    elif wrong or end[len(_BEFORE) :][:_DIGITS] != b"%08x" % zlib.crc32(text):
        return None, True
    try:
        return parse_object(text), checked
    except UNREADABLE:
        return None, checked
