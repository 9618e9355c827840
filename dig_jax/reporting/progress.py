"""What a person sees of a long run: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, SupportsFloat

from dig_jax.devices.compilation_cache import from_cache_since, lookups
from dig_jax.files.shown import LINE_END, printable
from dig_jax.reporting.streams import LastingStream, Nowhere, TextStream

if TYPE_CHECKING:
    from dig_jax.reporting.bar import Bar, Shown

_SECONDS_BETWEEN_LINES = 5.0
_LONG = 1.0  # seconds that somebody who waits wonders about


class Progress:
    """Progress of a run of steps, as a context manager.

    In a terminal, one line is kept up to date from the first second on, compilation
    included. Elsewhere (a pipe, a log file, a notebook) plain lines come, at most one
    in five seconds, and always the first and the last. Both go to stderr and messages
    to stdout, so that output can be piped on. A terminal or pipe that goes away ends
    nothing.

    Args:
        total_steps: Step at which the work is done.
        start_step: Step that it goes on from.
        description: What is going on, as in "train" or "draw".
        unit: What a step is, as in "step" or "image".
        stream: Where everything goes, messages too, instead of stderr and stdout.
        silent: Whether nothing is to be seen, because another process shows it.
        plain: Whether lines come where there is no terminal.
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        description: str = "train",
        *,
        unit: str = "step",
        stream: TextStream | None = None,
        silent: bool = False,
        plain: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if silent or not (plain or is_terminal(stream or sys.stderr)):
            stream = Nowhere()
        self._total_steps = total_steps
        self._step = start_step
        self._description = printable(description)
        self._unit = unit
        self._clock = clock
        self._loss: float | None = None
        self._images_per_second: float | None = None
        self._learning_rate: float | None = None
        self._start_time = clock()
        self._busy: tuple[str, float] | None = None  # with what, and since when
        self._origin: tuple[float, int] | None = None
        self._line_time: float | None = None
        self._line_due = False
        self._bar_stream = LastingStream(stream or sys.stderr)
        self._message_stream = LastingStream(stream or sys.stdout)
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if is_terminal(self._bar_stream):
            self._bar = self._start_bar()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            # It never came to a step, or has none.
            self._bar.close(erase=self._busy is not None or not self._total_steps)
            self._bar = None
        elif self._line_due:
            self._write_line()

    def update(
        self,
        step: int,
        loss: SupportsFloat | None = None,
        images_per_second: SupportsFloat | None = None,
        learning_rate: SupportsFloat | None = None,
    ) -> None:
        """Shows that `step` steps are done; what is not given keeps its last value."""
        self._step = step
        if loss is not None:
            self._loss = float(loss)
        if images_per_second is not None:
            self._images_per_second = float(images_per_second)
        if learning_rate is not None:
            self._learning_rate = float(learning_rate)
        now = self._clock()
        if self._origin is None:
            # The first step may hide compilation and says little about the others.
            self._origin = (now, step)
        if self._bar is None:
            self._line_due = True
            waited = self._line_time is None or (
                now - self._line_time >= _SECONDS_BETWEEN_LINES
            )
            if waited or step >= self._total_steps:
                self._write_line()

    @contextlib.contextmanager
    def compiling(self, what: str = "") -> Iterator[None]:
        """Shows for how long the block has been compiling, then the time it took."""
        start, before = self._clock(), lookups()
        name = f" {what}" if what else ""
        with self._showing(f"compiling{name}"):
            yield
        now = self._clock()
        self._origin = (now, self._step)
        source = ", from the cache" if from_cache_since(before) else ""
        text = f"compiled{name} in {now - start:.1f} s{source}"
        self._write_above(self._bar_stream, text)

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows for how long the block has been doing something, and what took long."""
        start = self._clock()
        with self._showing(what):
            yield
        seconds = self._clock() - start
        if self._origin is not None:  # no part of what a step takes
            since, step = self._origin
            self._origin = (since + seconds, step)
        if seconds >= _LONG:
            self._write_above(self._bar_stream, f"{what} took {seconds:.1f} s")

    @contextlib.contextmanager
    def _showing(self, what: str) -> Iterator[None]:
        what = printable(what)
        if self._bar is None:
            self._bar_stream.write_line(f"{what} ...")
        self._busy = (what, self._clock())
        yield
        self._busy = None

    def go_on_from(self, step: int) -> None:
        """Counts from a step that was done before."""
        self._step = step

    def message(self, text: str) -> None:
        """Prints a line on stdout, above the bar where there is one."""
        self._write_above(self._message_stream, text)

    def _write_above(self, stream: LastingStream, text: str) -> None:
        """Print a text with what is no visible character spelled out.

        Names of files and classes are anybody's.
        """
        text = printable(text, keep=LINE_END)
        # Only a terminal that shows the bar has to make room for the line.
        if self._bar is not None and stream.isatty():
            self._bar.write_above(text)
        else:
            stream.write_line(text)

    def _write_line(self) -> None:
        self._line_time = self._clock()
        self._line_due = False
        width = len(str(self._total_steps))
        count = f"{self._step:>{width}}/{self._total_steps}"
        fields = [
            f"{self._description}  {self._unit} {count}",
            *self._fields().values(),
        ]
        self._bar_stream.write_line("  ".join(fields))

    def _fields(self) -> dict[str, str]:
        """What is known beside the step, in the order of display."""
        fields = {}
        if self._total_steps > 0:
            fields["percent"] = f"{100 * self._step / self._total_steps:5.1f}%"
        if self._loss is not None:
            fields["loss"] = f"loss {_format_loss(self._loss)}"
        if self._learning_rate is not None:
            fields["learning_rate"] = f"lr {self._learning_rate:.2e}"
        if self._images_per_second is not None:
            fields["rate"] = f"{_format_rate(self._images_per_second)} images/s"
        seconds_left = self._seconds_left()
        if seconds_left is not None:
            fields["left"] = f"left {_format_seconds(seconds_left)}"
        return fields

    def _seconds_left(self) -> float | None:
        if self._origin is None:
            return None
        time_then, step_then = self._origin
        if self._step <= step_then or self._step >= self._total_steps:
            return None
        seconds_per_step = (self._clock() - time_then) / (self._step - step_then)
        return seconds_per_step * (self._total_steps - self._step)

    def _start_bar(self) -> Bar:
        from dig_jax.reporting.bar import Bar

        bar = Bar(
            self._bar_stream,
            self._description,
            self._total_steps,
            self._show,
            redirect_stdout=self._message_stream.isatty(),
        )
        bar.start()
        return bar

    def _show(self) -> Shown:
        """What the bar says now; the thread that draws it calls this."""
        from dig_jax.reporting.bar import Shown

        busy = self._busy
        if busy is not None:
            what, since = busy
            return Shown(self._step, {}, f"{what} ... {self._clock() - since:.0f} s")
        elapsed = _format_seconds(self._clock() - self._start_time)
        fields = {
            "count": f"{self._step}/{self._total_steps}",
            **self._fields(),
            "elapsed": f"elapsed {elapsed}",
        }
        return Shown(self._step, fields)


class StageProgress:
    """Progress of stages of work, each shown only if it takes seconds.

    Call it with what is done, how much of it, and of how much.
    """

    _PATIENCE = 3.0

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: tuple[str, float] | None = None
        self._shown: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done in the stage `what`."""
        if self._stage is None or self._stage[0] != what:
            self._end()
            self._stage = (what, self._clock())
        elapsed = self._clock() - self._stage[1]
        if self._shown is None and elapsed > self._PATIENCE and done < total:
            self._shown = Progress(total, done, what, unit="done", clock=self._clock)
            self._shown.__enter__()
        if self._shown is not None:
            self._shown.update(done)
        if done >= total:
            self._end()
            self._stage = None

    def _end(self) -> None:
        if self._shown is not None:
            self._shown.__exit__()
            self._shown = None


def is_terminal(stream: TextStream) -> bool:
    """Whether a person looks at a stream, who sees a bar move."""
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return LastingStream(stream).isatty() and not dumb


def _format_loss(loss: float) -> str:
    return f"{loss:.2e}" if 0 < abs(loss) < 1e-3 else f"{loss:.4f}"


def _format_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2f}"


def _format_seconds(seconds: float) -> str:
    """As m:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
