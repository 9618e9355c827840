"""Compile and still hear Ctrl-C."""

import threading
from typing import Any, Protocol, runtime_checkable

_left_behind: list[threading.Event] = []


@runtime_checkable
class Lowered(Protocol):
    """What is asked of a `jax.stages.Lowered`."""

    def compile(self) -> Any:
        """The program, as a function."""
        ...


def compile_lowered(lowered: Lowered) -> Any:
    """Compile in a thread of its own, so that signals are answered meanwhile.

    Python takes up a signal between two instructions of its main thread, and XLA's
    minutes lie within one. XLA itself cannot be stopped: after an interruption it goes
    on, and Python's exit waits for it (see `is_left_behind`).
    """
    compiled: list[Any] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            compiled.append(lowered.compile())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=work, name="compile").start()
        # Not by `join`, which an interruption makes believe that the thread has ended.
        ended.wait()
    except BaseException:
        _left_behind.append(ended)
        raise
    if errors:
        raise errors[0]
    return compiled[0]


def is_left_behind() -> bool:
    """Whether a compilation goes on that nobody waits for."""
    return not all(ended.is_set() for ended in _left_behind)
