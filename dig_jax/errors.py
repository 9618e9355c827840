"""Errors that users meet, and the exit codes of the command line."""

from collections.abc import Callable

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
