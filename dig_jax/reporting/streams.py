"""Streams of text that outlive the terminal or pipe behind them."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from typing import Protocol, runtime_checkable


@runtime_checkable
class TextStream(Protocol):
    """What is asked of a stream of text, such as `sys.stderr` or `io.StringIO`."""

    def write(self, text: str, /) -> int:
        """Take a text; returns its length."""
        ...

    def flush(self) -> None:
        """Hand everything on."""
        ...

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        ...

    def fileno(self) -> int:
        """The system's number of it."""
        ...


class Nowhere(io.TextIOBase):
    """A stream that nobody reads."""

    def write(self, text: str) -> int:
        """Nothing."""
        return len(text)


class LastingStream(io.TextIOBase):
    """A stream whose terminal or pipe may go away: then nothing is written any more."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """That of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        try:
            return self._stream.isatty()
        except ValueError:  # the stream was closed
            return False

    def write(self, text: str) -> int:
        """Write what the stream's encoding has; a character it lacks becomes a "?"."""
        known = text.encode(self.encoding, "replace").decode(self.encoding)
        with self._forgive():
            self._stream.write(known)
        return len(text)

    def write_line(self, text: str) -> None:
        """Write a line, at once."""
        self.write(f"{text}\n")
        self.flush()

    def flush(self) -> None:
        """Hand everything on."""
        with self._forgive():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgive(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                self._discard()
        except ValueError:  # the stream was closed
            pass

    def _discard(self) -> None:
        """Sends what is buffered nowhere: Python would flush it again at its exit."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
