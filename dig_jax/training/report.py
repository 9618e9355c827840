"""A run's page, written while it trains, by what the door hands down."""

import time
from collections.abc import Callable

from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import reason_of
from dig_jax.reporting import REPORT
from dig_jax.reporting.progress import Progress

WriteReport = Callable[[AnyPath], object]
"""Writes the page of a workdir, as `dig_jax.report.write_report` does."""

SHARE = 0.01
"""Of a run's time, at most, for pages before its end."""
FIRST_SECONDS = 0.5
"""What writing is taken to need before that is known."""


class RunReport:
    """Writes the page of a run; what goes wrong is told, and the run goes on.

    Args:
        write: What writes it; None for no page.
        workdir: The run's.
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        write: WriteReport | None,
        workdir: AnyPath,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._do, self._workdir, self._clock = write, workdir, clock
        self._began, self._spent, self._last = clock(), 0.0, FIRST_SECONDS

    def write_if_cheap(self, progress: Progress) -> None:
        """Write it, unless that would take more than SHARE of the time up to now."""
        elapsed = self._clock() - self._began
        if self._spent + self._last <= SHARE * elapsed:
            self.write(progress)

    def write(self, progress: Progress) -> None:
        """Write it."""
        if self._do is None:
            return
        began = self._clock()
        try:
            self._do(self._workdir)
        # Whatever it is: a run is not lost for want of its page.
        except Exception as error:
            progress.message(f"{REPORT} was not written: {reason_of(error)}")
        self._last = self._clock() - began
        self._spent += self._last
