"""One trainer at a time in a workdir: two would delete each other's checkpoints."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from absl import logging

from dig_jax.devices.sharding import as_first_process_says, is_first_process
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, is_remote

LOCK_FILE = "trainer.lock"
# A trainer that was killed a moment ago holds its lock until the system has buried it.
PATIENCE_SECONDS = 2.0
_HELD = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def only_trainer(
    workdir: AnyPath, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Holds a workdir's lock, which goes away with the process, however that ends.

    Process 0 of a run holds it for all of them; every process makes this call. Readers
    need no lock. A file system without locks, or a bucket, is trained on without one.

    Raises:
        InputError: Another run trains there; says where its process is.
    """
    file, holder = None, None
    if is_first_process() and not is_remote(workdir):
        try:
            file, holder = _take(Path(workdir / LOCK_FILE), patience_seconds)
        except OSError as error:
            logging.warning(
                "%s cannot be locked (%s): see to it that no other run trains there.",
                workdir,
                error.strerror,
            )
    with contextlib.ExitStack() as opened:
        if file is not None:
            opened.enter_context(file)
        if as_first_process_says(holder is not None):
            raise InputError(
                f"{workdir} is being trained by another run"
                f"{f', {holder}' if holder else ''}. Wait for it, end it, or use "
                "another --workdir."
            )
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
