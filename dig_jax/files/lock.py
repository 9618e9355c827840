"""One process at a time for a purpose in a folder, by a lock that dies with it."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from absl import logging

from dig_jax.errors import InputError

# A process that was killed a moment ago holds its lock until the system has buried it.
PATIENCE_SECONDS = 2.0
_HELD = (errno.EACCES, errno.EAGAIN)


class Purpose(NamedTuple):
    """What a folder is locked for.

    Attributes:
        file: The lock's name in the folder; the holder is written into it.
        doing: As in "is being trained by another run".
        advice: What to do instead.
    """

    file: str
    doing: str
    advice: str

    def refusal(self, folder: object, holder: str) -> InputError:
        """What is told to who comes second; the holder may be unknown, ""."""
        named = f", {holder}" if holder else ""
        return InputError(f"{folder} {self.doing}{named}. {self.advice}")


@contextlib.contextmanager
def try_lock(
    folder: Path, purpose: Purpose, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[str | None]:
    """Holds the lock and gives None; or does not, and gives who holds it.

    A file system without locks is worked on without one, and a warning.
    """
    file, holder = None, None
    try:
        file, holder = _take(folder / purpose.file, patience_seconds)
    except OSError as error:
        logging.warning(
            "%s cannot be locked (%s): see to it that no other process works there.",
            folder,
            error.strerror,
        )
    with contextlib.ExitStack() as opened:
        if file is not None:
            opened.enter_context(file)
        yield holder


@contextlib.contextmanager
def locked(
    folder: Path, purpose: Purpose, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Holds the lock.

    Raises:
        InputError: Another process does; says which and where.
    """
    with try_lock(folder, purpose, patience_seconds=patience_seconds) as holder:
        if holder is not None:
            raise purpose.refusal(folder, holder)
        yield


def _take(path: Path, patience_seconds: float) -> tuple[IO[str] | None, str | None]:
    """The locked file, or else what its holder wrote into it.

    Raises:
        OSError: The file system has no locks.
    """
    deadline = time.monotonic() + patience_seconds
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(path.open("a+", encoding="utf-8", errors="replace"))
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in _HELD:
                    raise
            if time.monotonic() > deadline:
                file.seek(0)
                return None, " ".join(file.read(200).split())
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        opened.pop_all()
        return file, None


def is_held(path: Path) -> bool:
    """Whether a process holds a lock's file now; False where that cannot be told."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    return False
