"""Keeps Orbax quiet where it would talk over the one message that matters."""

import asyncio
import functools
import logging as python_logging
import sys

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


@functools.cache
def quiet_orbax() -> None:
    """From now on drop Orbax's log lines, and have it work in a `_PatientLoop`.

    When one array cannot be read or written, Orbax closes its event loop under the work
    on the others. Python then prints pages of tracebacks, some much later, over the one
    message that says what happened.
    """
    logging.get_absl_logger().addFilter(_OrbaxFilter())
    new_event_loop = asyncio.new_event_loop

    def new_loop() -> asyncio.AbstractEventLoop:
        caller = sys._getframe(1)
        for _ in range(3):  # functions may be wrapped, as by checks of their types
            if caller.f_code.co_filename.startswith(ORBAX_FOLDER):
                return _PatientLoop()
            caller = caller.f_back or caller
        return new_event_loop()

    asyncio.new_event_loop = new_loop
