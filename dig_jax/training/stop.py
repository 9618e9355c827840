"""Stop a run between two steps when a signal asks for it."""

import signal
from types import FrameType


class StopSignal:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    A second signal acts as it would have without this.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignal":
        for which in (signal.SIGINT, signal.SIGTERM):
            self._previous[which] = signal.signal(which, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for which, handler in self._previous.items():
            signal.signal(which, handler)  # type: ignore[arg-type]
        self._previous = {}
