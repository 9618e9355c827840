"""What a run is busy with, told at once to all that keep account of it."""

import contextlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from dig_jax.reporting.goodput import Goodput
from dig_jax.reporting.progress import Progress

WITHOUT_STEPS = ("drawing", "evaluation", "other")
"""Kinds of work (`goodput.KINDS`) that may take any time and hold up the steps."""


@runtime_checkable
class StepClock(Protocol):
    """What counts the seconds that steps take."""

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Entered while no step is to be expected."""
        ...


class Activities:
    """Called, it is entered for as long as a run is busy with something.

    The time is that of its kind in goodput.jsonl, the progress says what it is, and
    clocks of steps stand still where it holds up the steps:

        with doing("evaluation"):
            ...

    Args:
        goodput: Where the time goes.
        progress: What is seen of it.
        *clocks: The watchdog's, and that of images/s.
    """

    def __init__(
        self, goodput: Goodput, progress: Progress, *clocks: StepClock
    ) -> None:
        self._goodput, self._progress, self._clocks = goodput, progress, clocks

    @contextlib.contextmanager
    def __call__(self, kind: str, what: str = "") -> Iterator[None]:
        """The block is work of this kind (`goodput.KINDS`).

        Args:
            kind: Whose time it is; afterwards it is whose it was before.
            what: Shown while it goes on, and how long it took; "" for nothing.
        """
        with contextlib.ExitStack() as accounts:
            accounts.enter_context(self._goodput.spent(kind))
            for clock in self._clocks if kind in WITHOUT_STEPS else ():
                accounts.enter_context(clock.paused())
            if what:
                shown = self._progress.compiling if kind == "compile" else None
                accounts.enter_context((shown or self._progress.busy)(what))
            yield
