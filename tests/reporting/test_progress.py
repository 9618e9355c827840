import io
import os
import re
import sys
import time

import pytest

from dig_jax.reporting.progress import Progress, StageProgress


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Every line ever drawn, without colours and cursor movements."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def run_plain(steps: range, total: int, *, seconds: float, **options) -> list[str]:
    """The plain lines of a run whose steps take some seconds each."""
    clock, stream = FakeClock(), io.StringIO()
    with Progress(total, stream=stream, clock=clock, **options) as progress:
        for step in steps:
            clock.seconds += seconds
            progress.update(step, loss=0.5 / step, images_per_second=1623.4)
    return stream.getvalue().splitlines()


def test_a_plain_line_says_step_loss_rate_and_time_left():
    clock, stream = FakeClock(), io.StringIO()
    with Progress(4000, stream=stream, clock=clock) as progress:
        progress.update(200, loss=0.1)
        clock.seconds += 4.0
        progress.update(300)
        clock.seconds += 4.0
        progress.update(400, loss=0.08123, images_per_second=1623.4)
    line = stream.getvalue().splitlines()[-1]
    # 200 steps took 8 s, so 3,600 more take 144 s.
    assert line == (
        "train  step  400/4000   10.0%  loss 0.0812  1623 images/s  left 2:24"
    )


def test_a_message_is_lines_without_terminal_escapes():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress.message("a class \x1b[2J of\nanybody's")
    assert stream.getvalue() == "a class \\x1b[2J of\nanybody's\n"


def test_plain_lines_are_five_seconds_apart_beside_the_first_and_last():
    lines = run_plain(range(1, 102), 101, seconds=0.5)
    steps = [int(re.findall(r"(\d+)/101", line)[0]) for line in lines]
    assert steps == [*range(1, 102, 10)]
    lines = run_plain(range(1, 101), 100, seconds=0.5)
    assert re.search(r"100/100  100\.0%", lines[-1])


def test_a_run_that_stops_early_still_prints_its_last_step_once():
    lines = run_plain(range(1, 8), 100, seconds=0.5)
    assert [re.findall(r"(\d+)/100", line)[0] for line in lines] == ["1", "7"]
    lines = run_plain(range(1, 2), 100, seconds=0.5)
    assert len(lines) == 1


def test_time_left_leaves_compilation_out():
    clock, stream = FakeClock(), io.StringIO()
    with Progress(100, stream=stream, clock=clock) as progress:
        with progress.compiling():
            clock.seconds += 60.0
        clock.seconds += 10.0
        progress.update(10)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["compiling ...", "compiled in 60.0 s"]
    assert lines[2].endswith("left 1:30")


def test_time_left_leaves_out_what_is_done_between_steps():
    """An evaluation right after the origin is not taken for the time of a step."""
    clock, stream = FakeClock(), io.StringIO()
    with Progress(100, stream=stream, clock=clock) as progress:
        with progress.compiling():
            clock.seconds += 60.0
        with progress.busy("evaluating"):
            clock.seconds += 30.0
        clock.seconds += 10.0
        progress.update(10)
    assert stream.getvalue().splitlines()[-1].endswith("left 1:30")


def test_time_left_of_a_resumed_run_counts_its_own_steps_alone():
    (_, line, *_) = run_plain(range(901, 1001), 1000, seconds=5.0, start_step=900)
    assert line.endswith("left 8:10")  # 98 steps of 5 s


def test_a_failed_compilation_is_not_called_compiled():
    stream = io.StringIO()
    with (
        Progress(10, stream=stream) as progress,
        pytest.raises(RuntimeError),
        progress.compiling(),
    ):
        raise RuntimeError
    assert stream.getvalue() == "compiling ...\n"


def test_drawing_has_images_and_no_loss():
    clock, stream = FakeClock(), io.StringIO()
    with Progress(64, 0, "draw", unit="image", stream=stream, clock=clock) as progress:
        progress.update(32, images_per_second=4.2)
    assert stream.getvalue() == "draw  image 32/64   50.0%  4.20 images/s\n"


def test_the_learning_rate_stands_beside_the_loss():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress.update(10, loss=0.5, learning_rate=3e-4)
    assert stream.getvalue() == "train  step 10/10  100.0%  loss 0.5000  lr 3.00e-04\n"


def test_messages_go_to_stdout_and_lines_to_stderr(capsys):
    with Progress(2) as progress:
        progress.update(1, loss=1e-5)
        progress.message("saved [step 1]")
    out, err = capsys.readouterr()
    assert out == "saved [step 1]\n"
    assert err == "train  step 1/2   50.0%  loss 1.00e-05\n"


def test_a_terminal_shows_a_line_from_the_first_second_to_the_last_step():
    clock, stream = FakeClock(), Terminal()
    with Progress(400, stream=stream, clock=clock) as progress:
        assert "0/400" in stream.lines()[0]
        clock.seconds += 65.0
        progress.update(400, loss=0.25, images_per_second=99.6)
    assert stream.lines()[-1].endswith(
        "400/400  100.0%  loss 0.2500  100 images/s  elapsed 1:05"
    )


def test_a_terminal_counts_the_seconds_of_compiling_while_it_blocks():
    clock, stream = FakeClock(), Terminal()
    with Progress(400, stream=stream, clock=clock) as progress, progress.compiling():
        for seconds in (3, 4):
            clock.seconds = 100.0 + seconds
            shown = f"train  compiling ... {seconds} s"
            deadline = time.monotonic() + 30
            while shown not in stream.lines() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert shown in stream.lines()
    assert "compiled in 4.0 s" in stream.lines()


@pytest.mark.parametrize("width", [1, 10, 25, 40, 60, 80, 100, 200])
def test_the_bar_never_takes_more_than_a_line(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    clock, stream = FakeClock(), Terminal()
    with Progress(1_000_000, 10, stream=stream, clock=clock) as progress:
        progress.update(100_000, loss=0.0812, images_per_second=12345)
        clock.seconds += 3_000.0
        progress.update(700_000)
    assert max(len(line) for line in stream.lines()) <= width
    # Only the end of the bar is an end of a line.
    assert stream.getvalue().count("\n") == 1


def test_a_narrow_terminal_keeps_loss_and_time_left_and_drops_the_rest(monkeypatch):
    monkeypatch.setenv("COLUMNS", "55")
    clock, stream = FakeClock(), Terminal()
    with Progress(4000, stream=stream, clock=clock) as progress:
        progress.update(200, loss=0.1, images_per_second=1623.4)
        clock.seconds += 4.0
        progress.update(400)
    assert stream.lines()[-1].endswith("  400/4000  loss 0.1000  left 1:12")


def test_messages_stand_above_the_bar_as_they_are(monkeypatch):
    stream = Terminal()
    with Progress(10, stream=stream) as progress:
        progress.message("wrote [bold]/a/path[/bold] " + "x" * 150)
        progress.update(10)
    assert "wrote [bold]/a/path[/bold] " + "x" * 150 in stream.lines()
    assert "10/10" in stream.lines()[-1]


def test_no_color_is_respected(monkeypatch):
    def draw() -> str:
        stream = Terminal()
        with Progress(10, stream=stream) as progress:
            progress.update(5)
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.search(r"\x1b\[[0-9;]+m", draw())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(3|4|9)[0-9;]*m", draw())


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(10, stream=stream) as progress:
        progress.update(10, loss=1.0)
    assert stream.getvalue() == "train  step 10/10  100.0%  loss 1.0000\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_pipe_that_was_closed_ends_nothing(is_terminal):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        stream.isatty = lambda: is_terminal
        with Progress(2, stream=stream) as progress, progress.compiling():
            progress.message("hello")
        progress.update(2)


@pytest.mark.parametrize("stream_class", [io.StringIO, Terminal])
def test_a_stream_that_was_closed_ends_nothing(stream_class):
    stream = stream_class()
    with Progress(2, stream=stream) as progress:
        stream.close()
        progress.update(1)
        progress.message("hello")


def test_characters_that_the_stream_lacks_are_replaced():
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="ascii")
    with Progress(2, stream=stream) as progress:
        progress.message("50 \N{MICRO SIGN}m")
    assert data.getvalue() == b"50 ?m\n"


def test_stdout_and_stderr_are_what_they_were_afterwards():
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt), Progress(2, stream=Terminal()):
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == before


def run_stages(capsys, seconds, *stages):
    """What is shown of stages of ten parts that take some seconds each."""
    clock = FakeClock()
    progress = StageProgress(clock=clock)
    for stage in stages:
        for part in range(1, 11):
            clock.seconds += seconds
            progress(stage, part, 10)
    return capsys.readouterr().err.splitlines()


def test_stages_that_take_no_time_are_not_shown(capsys):
    assert run_stages(capsys, 0.1, "statistics", "features") == []


def test_stages_that_take_seconds_are_shown_to_their_end(capsys):
    lines = run_stages(capsys, 2.0, "statistics", "features")
    for stage in ("statistics", "features"):
        shown = [line for line in lines if line.startswith(stage)]
        assert shown[-1].startswith(f"{stage}  done 10/10  100.0%")
        assert len(shown) > 1
