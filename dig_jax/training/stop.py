"""Stop a run between two steps when a signal asks for it."""

import contextlib
import signal
from collections import deque
from collections.abc import Iterator
from types import FrameType

import jax

from dig_jax.errors import EXIT_DONE, EXIT_INTERRUPTED
from dig_jax.training.log import STEPS_IN_FLIGHT, Count


def exit_code_of(received: signal.Signals) -> int:
    """That of a run that a signal stopped, after what was trained is saved."""
    return EXIT_INTERRUPTED if received is signal.SIGINT else EXIT_DONE


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where nothing would be lost by ending at once."""


class StopSignal:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    A second signal acts as it would have without this.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at_once = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        for which in (signal.SIGINT, signal.SIGTERM):
            self._previous[which] = signal.signal(which, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While entered, Ctrl-C ends what is going on, also one that came before.

        Not with several processes, which stop after the same step.

        Raises:
            Interrupted: By Ctrl-C.
        """
        self._at_once = jax.process_count() == 1
        try:
            self._end_if_asked()
            yield
        finally:
            self._at_once = False

    def _end_if_asked(self) -> None:
        if self._at_once and self.received is signal.SIGINT:
            raise Interrupted

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        self._end_if_asked()

    def _restore(self) -> None:
        for which, handler in self._previous.items():
            signal.signal(which, handler)  # type: ignore[arg-type]
        self._previous = {}


class AgreedStop:
    """The signal that reached any process, at the same step in each of them.

    With several processes the answer comes some steps late, as do the metrics, so that
    nobody waits for it.
    """

    def __init__(self) -> None:
        self._in_flight: deque[Count] = deque()
        self._delay = STEPS_IN_FLIGHT if jax.process_count() > 1 else 0

    def after_step(self, greatest: Count) -> signal.Signals | None:
        """Which signal to stop by after this step.

        Args:
            greatest: The greatest number of a signal that a process had received, 0 for
                none.
        """
        self._in_flight.append(greatest)
        if len(self._in_flight) <= self._delay:
            return None
        number = int(self._in_flight.popleft())
        return signal.Signals(number) if number else None
