"""Errors that users meet, and the exit codes of the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from absl import logging

EXIT_DONE = 0
EXIT_UNFORESEEN = 1
EXIT_WATCHDOG = 75
EXIT_PEER_FAILURE = 76
EXIT_NON_FINITE = 77
EXIT_BAD_INPUT = 78
EXIT_INTERRUPTED = 130


class InputError(ValueError):
    """A configuration or input that cannot work.

    The message says what is needed, what came, and the choices. The command line prints
    it alone, without a traceback, and exits with `EXIT_BAD_INPUT`.
    """


class Findings:
    """Everything that cannot work, to be said together.

    Args:
        kind: Of what it is found in, as in "Variant"; "" where there is one thing.
    """

    def __init__(self, kind: str = "") -> None:
        self._kind = kind
        self._found: dict[str, list[str]] = {}

    @contextmanager
    def noting(self, whose: str = "") -> Iterator[None]:
        """Note an InputError of the block, and go on after it.

        Args:
            whose: The name of what it is found in.
        """
        try:
            yield
        except InputError as error:
            names = self._found.setdefault(str(error), [])
            names += [] if whose in names else [whose]

    @property
    def any(self) -> bool:
        """Whether there is something to be said."""
        return bool(self._found)

    def raise_all(self) -> None:
        """Raise InputError with all that was noted, each once, if there is any."""
        lines = []
        for message, whose in self._found.items():
            kind = self._kind + ("s" if len(whose) > 1 else "")
            names = ", ".join(map(repr, whose))
            lines.append(f"{kind} {names}: {message}" if self._kind else message)
        if len(lines) == 1:
            raise InputError(lines[0])
        if lines:
            listed = "".join(f"\n  {i}. {line}" for i, line in enumerate(lines, 1))
            raise InputError(f"{len(lines)} things cannot work:{listed}")


class NonFiniteError(ArithmeticError):
    """Numbers that are not finite where only finite ones mean anything."""


class PeerError(RuntimeError):
    """Another process of the run has ended, or never came."""


class CheckpointCorruptError(ValueError):
    """No checkpoint can be read: what is wrong with each step."""


class CheckpointSaveError(OSError):
    """A checkpoint could not be written; the finished ones are as they were."""


def close_after(
    error: BaseException | None, close: Callable[[], None], kind: type[Exception]
) -> None:
    """Close at the end of a `with` block, which an error may have ended.

    Args:
        error: That one; None for none.
        close: What may fail itself.
        kind: How it may fail: that must not hide the first error, and is logged then.
    """
    if error is None:
        close()
        return
    try:
        close()
    except kind as second:
        logging.error("%s", second)
