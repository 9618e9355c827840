"""What a person sees of a long run: a bar in a terminal, plain lines elsewhere."""

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Protocol, SupportsFloat, cast, runtime_checkable

from dig_jax.devices.compilation_cache import from_cache_since, lookups

if TYPE_CHECKING:
    from rich.live import Live

_SECONDS_BETWEEN_LINES = 5.0
_MIN_BAR, _MAX_BAR = 10, 40
_LONG = 1.0  # seconds that somebody who waits wonders about


@runtime_checkable
class _TextStream(Protocol):
    """What is asked of a stream of text, such as `sys.stderr` or `io.StringIO`."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...

    def fileno(self) -> int: ...


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
        clock: Seconds from any origin.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        description: str = "train",
        *,
        unit: str = "step",
        stream: _TextStream | None = None,
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = _Nowhere() if silent else stream
        self._total_steps = total_steps
        self._step = start_step
        self._description = description
        self._unit = unit
        self._clock = clock
        self._loss: float | None = None
        self._images_per_second: float | None = None
        self._start_time = clock()
        self._busy: tuple[str, float] | None = None  # with what, and since when
        self._origin: tuple[float, int] | None = None
        self._line_time: float | None = None
        self._line_due = False
        self._bar_stream = _LastingStream(stream or sys.stderr)
        self._message_stream = _LastingStream(stream or sys.stdout)
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        if self._bar_stream.isatty() and not dumb:
            self._live = self._start_live()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            # It never came to a step, or has none.
            self._live.transient = self._busy is not None or not self._total_steps
            self._live.stop()
            self._live = None
        elif self._line_due:
            self._write_line()

    def update(
        self,
        step: int,
        loss: SupportsFloat | None = None,
        images_per_second: SupportsFloat | None = None,
    ) -> None:
        """Shows that `step` steps are done; what is not given keeps its last value."""
        self._step = step
        if loss is not None:
            self._loss = float(loss)
        if images_per_second is not None:
            self._images_per_second = float(images_per_second)
        now = self._clock()
        if self._origin is None:
            # The first step may hide compilation and says little about the others.
            self._origin = (now, step)
        if self._live is None:
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
        if seconds >= _LONG:
            self._write_above(self._bar_stream, f"{what} took {seconds:.1f} s")

    @contextlib.contextmanager
    def _showing(self, what: str) -> Iterator[None]:
        if self._live is None:
            _print(self._bar_stream, f"{what} ...")
        self._busy = (what, self._clock())
        yield
        self._busy = None

    def go_on_from(self, step: int) -> None:
        """Counts from a step that was done before."""
        self._step = step

    def message(self, text: str) -> None:
        """Prints a line on stdout, above the bar where there is one."""
        self._write_above(self._message_stream, text)

    def _write_above(self, stream: "_LastingStream", text: str) -> None:
        # Only a terminal that shows the bar has to make room for the line.
        if self._live is not None and stream.isatty():
            from rich.text import Text

            self._live.console.print(Text(text), soft_wrap=True)
        else:
            _print(stream, text)

    def _write_line(self) -> None:
        self._line_time = self._clock()
        self._line_due = False
        width = len(str(self._total_steps))
        count = f"{self._step:>{width}}/{self._total_steps}"
        fields = [
            f"{self._description}  {self._unit} {count}",
            *self._fields().values(),
        ]
        _print(self._bar_stream, "  ".join(fields))

    def _fields(self) -> dict[str, str]:
        """What is known beside the step, in the order of display."""
        fields = {}
        if self._total_steps > 0:
            fields["percent"] = f"{100 * self._step / self._total_steps:5.1f}%"
        if self._loss is not None:
            fields["loss"] = f"loss {_format_loss(self._loss)}"
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

    def _start_live(self):
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=cast("IO[str]", self._bar_stream),
            force_terminal=True,
            force_interactive=True,
        )
        live = Live(
            get_renderable=lambda: self._render(console.width),
            console=console,
            refresh_per_second=8,
            redirect_stdout=self._message_stream.isatty(),
        )
        live.start(refresh=True)
        return live

    def _render(self, width: int):
        """The one line of the bar, with what fits; the refreshing thread calls this."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        busy = self._busy
        if busy is not None:
            what, since = busy
            seconds = self._clock() - since
            text = f"{self._description}  {what} ... {seconds:.0f} s"
            return Text(text, no_wrap=True, overflow="ellipsis")
        elapsed = _format_seconds(self._clock() - self._start_time)
        fields = {
            "count": f"{self._step}/{self._total_steps}",
            **self._fields(),
            "elapsed": f"elapsed {elapsed}",
        }
        for least in ("elapsed", "percent", "rate"):
            if _room_for_bar(width, self._description, fields) >= _MIN_BAR:
                break
            fields.pop(least, None)
        text = Text("  ".join(fields.values()), no_wrap=True, overflow="ellipsis")
        bar_width = min(_room_for_bar(width, self._description, fields), _MAX_BAR)
        if bar_width < _MIN_BAR:
            return (
                Text(f"{self._description}  ", no_wrap=True, overflow="ellipsis") + text
            )
        line = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(self._total_steps, self._step, width=bar_width)
        line.add_row(self._description, bar, text)
        return line


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


class _Nowhere(io.TextIOBase):
    """A stream that nobody reads."""

    def write(self, text: str) -> int:
        return len(text)


class _LastingStream(io.TextIOBase):
    """A stream whose terminal or pipe may go away: then nothing is written any more."""

    def __init__(self, stream: _TextStream) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # the stream was closed
            return False

    def write(self, text: str) -> int:
        # A character that the terminal lacks must not cost the line.
        known = text.encode(self.encoding, "replace").decode(self.encoding)
        with self._forgive():
            self._stream.write(known)
        return len(text)

    def flush(self) -> None:
        with self._forgive():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgive(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                self._discard()
        except ValueError:  # the stream was closed
            pass

    def _discard(self) -> None:
        """Sends what is buffered nowhere: Python would flush it again at its exit."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _print(stream: _LastingStream, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def _room_for_bar(width: int, description: str, fields: dict[str, str]) -> int:
    return width - len("  ".join([description, "", *fields.values()])) - 1


def _format_loss(loss: float) -> str:
    return f"{loss:.2e}" if 0 < abs(loss) < 1e-3 else f"{loss:.4f}"


def _format_rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2f}"


def _format_seconds(seconds: float) -> str:
    """As m:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
