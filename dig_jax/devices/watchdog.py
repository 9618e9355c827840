"""End a process whose training stands still: a peer, a disk or a device that hangs."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

from dig_jax.errors import EXIT_WATCHDOG

# Others that wait for the same thing see it too, and end with the same code.
GRACE_SECONDS = 1.5


class Watchdog:
    """While entered, ends the process when no step has been done for too long.

    It exits with `EXIT_WATCHDOG` and prints where every thread stands. Time in which
    the process itself was stopped (Ctrl-Z, a laptop asleep) does not count.

    Args:
        seconds: How long is too long; 0 for never.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._interval = min(1.0, seconds / 4)
        self._waited = 0.0
        self._paused = False
        self._step: int | None = None
        self._left = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def step_done(self, step: int) -> None:
        """Begin to wait anew."""
        self._step, self._waited = step, 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Work without steps, of any length."""
        self._paused = True
        yield
        self._waited, self._paused = 0.0, False

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._left.wait(self._interval):
            now = time.monotonic()
            if not self._paused:
                self._waited += min(now - before, 2 * self._interval)
            before = now
            if self._waited > self._seconds:
                self._end()

    def _end(self) -> None:
        after = "" if self._step is None else f" after step {self._step}"
        text = (
            f"watchdog: no step was done in {self._seconds:g} s{after}. A device, a "
            f"disk or another process of the run hangs; where each thread stands:\n"
        )
        # Not through sys.stderr: whoever hangs may hold its lock.
        os.write(2, text.encode())
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        time.sleep(GRACE_SECONDS)
        os._exit(EXIT_WATCHDOG)
