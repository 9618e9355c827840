"""The door that every reader of a file goes through: damage is told in one line.

A file may be damaged, cut off, of another kind, or made to do harm. Libraries then
raise nearly all that Python has; `readable` turns it into an InputError that names the
file. What a file declares is compared with its size, and with what the reader asked
for, before memory is taken for it.
"""

import contextlib
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath
from dig_jax.files.shown import printable

# RuntimeError is zipfile's word for a password, NotImplementedError for a compression.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
"""What reading a damaged file raises; the errors of networks pass."""

MAX_JSON_BYTES = 2**24
"""Of a file of JSON: Python's objects take some ten times as much."""


@contextlib.contextmanager
def readable(
    place: object,
    what: str,
    advice: str = "",
    kinds: tuple[type[Exception], ...] = UNREADABLE,
) -> Iterator[None]:
    """Turns what is raised while a file is read into an InputError of one line.

    Args:
        place: The file.
        what: As in "is no configuration".
        advice: A sentence of what to do; "" for none.
        kinds: What is turned; `(Exception,)` for a library with errors of its own.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(
            f"{place} {what}: {reason_of(error)}.{advice and ' '}{advice}"
        ) from error


def reason_of(error: Exception) -> str:
    """An error's message in a short line, which has no full stop yet."""
    text = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return printable(text)


def read_json(path: AnyPath, what: str, advice: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: The file.
        what: What it is not if it cannot be read, as in "is no configuration".
        advice: What to do then.

    Raises:
        InputError: It is no JSON object, too large, or cannot be read.
    """
    with readable(path, what, advice), path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes")
        return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that bytes hold.

    Raises:
        ValueError, TypeError, RecursionError: They hold none.
    """
    value = json.loads(data.decode())
    if not isinstance(value, dict):
        raise TypeError(f"it must be a JSON object, got {type(value).__name__}")
    return value
