"""Keeps Orbax quiet where it would talk over the one message that matters."""

import asyncio
import contextlib
import logging as python_logging
import sys
import threading
from collections.abc import Iterator

import orbax.checkpoint as ocp
from absl import logging

ORBAX_FOLDER = next(iter(ocp.__path__))


class _OrbaxFilter(python_logging.Filter):
    """Drops what Orbax logs, some 100 lines a save; `--verbosity=1` brings it back.

    Its errors too: they reach the user as exceptions of this module.
    """

    def filter(self, record: python_logging.LogRecord) -> bool:
        from_orbax = record.pathname.startswith(ORBAX_FOLDER)
        return not from_orbax or logging.level_debug()


class _PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that lets its tasks end before it is closed, and says nothing."""

    def close(self) -> None:
        if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()

    def call_exception_handler(self, context: dict) -> None:
        del context  # an error of a task beside the one that was raised


class _Manners:
    """What is changed while Orbax works, and how often that has been asked for."""

    def __init__(self) -> None:
        self._lock, self._count = threading.Lock(), 0
        self._filter, self._new_loop = _OrbaxFilter(), asyncio.new_event_loop

    def take(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                logging.get_absl_logger().addFilter(self._filter)
                self._new_loop = asyncio.new_event_loop
                asyncio.new_event_loop = self._new_loop_for

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                logging.get_absl_logger().removeFilter(self._filter)
                if asyncio.new_event_loop == self._new_loop_for:
                    asyncio.new_event_loop = self._new_loop

    def _new_loop_for(self) -> asyncio.AbstractEventLoop:
        """A `_PatientLoop` where Orbax asks for a loop, else what anybody gets."""
        caller = sys._getframe(1)
        for _ in range(3):  # functions may be wrapped, as by checks of their types
            if caller.f_code.co_filename.startswith(ORBAX_FOLDER):
                return _PatientLoop()
            caller = caller.f_back or caller
        return self._new_loop()


_manners = _Manners()


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Drops Orbax's log lines, and has it work in a `_PatientLoop`, until the end.

    When one array cannot be read or written, Orbax closes its event loop under the work
    on the others. Python then prints pages of tracebacks, some much later, over the one
    message that says what happened. It takes its loops from `asyncio.new_event_loop`,
    in threads of its own too, so that is replaced while it works; nobody else is given
    another loop.
    """
    _manners.take()
    try:
        yield
    finally:
        _manners.leave()
