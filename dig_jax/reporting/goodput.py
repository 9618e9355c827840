"""Where a run's time went: how much of it trained, over this start and all of them.

goodput.jsonl in the workdir holds a line for each start of the run, written anew while
it trains, so that a killed start has its line too.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from dig_jax.devices.peak_memory import peak_bytes
from dig_jax.files.json_lines import read_lines, set_damage_aside, to_line
from dig_jax.files.paths import AnyPath, is_remote, write_whole

FILE_NAME = "goodput.jsonl"
SECONDS_BETWEEN_WRITES = 5.0
SECONDS_BETWEEN_UPLOADS = 60.0  # steps wait for them
KINDS = {
    "productive": "productive",  # steps, but for waiting for their data
    "lost": "lost",  # steps that an earlier start had done and not saved
    "start": "start",  # imports, data set, first parameters
    "compile": "compile",
    "data_wait": "data wait",
    "checkpoint": "checkpoint",  # saving as far as steps wait for it, restoring
    "evaluation": "evaluation",
    "drawing": "drawing",
    "other": "other",
}


class Goodput:
    """Adds up the seconds that a run spends on each kind of work, from its making on.

    Every second belongs to one kind, so the kinds add up to the wall time. It reads the
    host's clock where the kind changes and waits for no device.

    Args:
        clock: Seconds from any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kind, self._since = "start", clock()
        self._seconds = dict.fromkeys(KINDS, 0.0)

    def turn_to(self, kind: str) -> None:
        """From now on the time is this kind's."""
        now = self._clock()
        self._seconds[self._kind] += now - self._since
        assert kind in KINDS, kind
        self._kind, self._since = kind, now

    @contextlib.contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """The time of the block is this kind's; afterwards it is what it was before."""
        before = self._kind
        self.turn_to(kind)
        try:
            yield
        finally:
            self.turn_to(before)

    def turn_to_step(self, step: int, done_before: int) -> None:
        """From now on the time is that of a step, which may have been done before."""
        self.turn_to("lost" if step <= done_before else "productive")

    def seconds(self) -> dict[str, float]:
        """Seconds up to now by kind."""
        self.turn_to(self._kind)
        return dict(self._seconds)


class GoodputFile:
    """The lines of goodput.jsonl: those of earlier starts, and this one's.

    A context manager: leaving it writes how the start ended.

    Args:
        workdir: Folder of the run; None to write nothing, because another process does.
        goodput: This start's times.
        first_step: Step that it goes on from.

    Attributes:
        done_before: The last step that an earlier start is known to have done.
    """

    def __init__(
        self, workdir: AnyPath | None, goodput: Goodput, first_step: int
    ) -> None:
        self._workdir, self._goodput = workdir, goodput
        self._earlier = []
        if workdir is not None:
            set_damage_aside(workdir / FILE_NAME)
            self._earlier = read_goodput(workdir)
        self._first_step = self._last_step = first_step
        self._written = -float("inf")
        remote = workdir is not None and is_remote(workdir)
        self._pause = SECONDS_BETWEEN_UPLOADS if remote else SECONDS_BETWEEN_WRITES
        steps = [line["last_step"] for line in self._earlier]
        self.done_before = max(steps, default=0)

    def __enter__(self) -> "GoodputFile":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._write("in order" if error_type is None else error_type.__name__)

    def turn_to_step(self, step: int) -> None:
        """From now on the time is that of a step, which may have been done before."""
        self._goodput.turn_to_step(step, self.done_before)

    def step_done(self, step: int) -> None:
        """Note that a step is done, on disk if that was not done a moment ago."""
        self._last_step = step
        if time.monotonic() - self._written >= self._pause:
            self._write(None)

    def summary(self) -> str:
        """A line of this start, and one of all of them if it is not the first."""
        lines = [*self._earlier, self._line(None)]
        said = [f"goodput: {_shown(lines[-1:])}"]
        if len(lines) > 1:
            said.append(f"goodput of all {len(lines)} starts: {_shown(lines)}")
        return "\n".join(said)

    def _write(self, how: str | None) -> None:
        self._written = time.monotonic()
        if self._workdir is not None:
            lines = [*self._earlier, self._line(how)]
            text = "".join(map(to_line, lines))
            try:
                write_whole(self._workdir / FILE_NAME, text)
            except OSError as error:  # a run is not lost for want of its bookkeeping
                logging.warning("goodput.jsonl could not be written: %s", error)

    def _line(self, how: str | None) -> dict[str, Any]:
        """This start's; `how` it ended is None while it runs, or if it was killed."""
        seconds = {k: round(s, 3) for k, s in self._goodput.seconds().items()}
        return {
            "start": len(self._earlier) + 1,
            "first_step": self._first_step,
            "last_step": self._last_step,
            "end": how,
            "wall_seconds": round(sum(seconds.values()), 3),
            "seconds": seconds,
            "peak_bytes": peak_bytes(),
        }


def read_goodput(workdir: AnyPath) -> list[dict[str, Any]]:
    """The lines of goodput.jsonl, one for each start; [] where there are none.

    A line that cannot be read is left out.
    """
    lines = []
    for line in read_lines(workdir / FILE_NAME):
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            numbers = [line["last_step"], line["wall_seconds"]]
            numbers += [line["seconds"].get(kind, 0.0) for kind in KINDS]
            if all(isinstance(number, int | float) for number in numbers):
                lines.append(line)
    return lines


def _shown(lines: list[dict[str, Any]]) -> str:
    wall = sum(line["wall_seconds"] for line in lines)
    spent = {k: sum(line["seconds"].get(k, 0.0) for line in lines) for k in KINDS}
    parts = [
        f"{KINDS[kind]} {seconds:.1f} s"
        for kind, seconds in spent.items()
        if kind != "productive" and seconds >= 0.05
    ]
    share = 100 * spent["productive"] / max(wall, 1e-9)
    return f"{share:.1f}% of {wall:.1f} s were productive; {', '.join(parts)}"
