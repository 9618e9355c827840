"""Commands that a part starts, with what they say and when they say it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, NamedTuple

SECONDS_TO_SPEAK = 10.0


class Ran(NamedTuple):
    """How a command went.

    Attributes:
        seconds: Until it ended, or what was waited for came.
        code: Exit code; None where it was ended because that came.
        lines: (second, line) of all it said, errors among it.
        in_time: False where its time was up.
    """

    seconds: float
    code: int | None
    lines: list[tuple[float, str]]
    in_time: bool

    @property
    def ending(self) -> str:
        """The last lines, for a note."""
        return "\n".join(line for _, line in self.lines[-40:])[-4000:]


def run_command(
    arguments: list[str],
    *,
    limit: float,
    environment: Mapping[str, str | None] | None = None,
    until: Callable[[], bool] | None = None,
    each: Callable[[str], None] | None = None,
) -> Ran:
    """Run Python with these arguments.

    A command whose time is up first says where each of its threads is.

    Args:
        arguments: After the interpreter's name.
        limit: Seconds.
        environment: Variables to be set; None for one that shall not be there.
        until: End it when this is true.
        each: Called with each line that it says.
    """
    start = time.monotonic()
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: list[tuple[float, str]] = []

    def listen(pipe: IO[str]) -> None:
        for line in pipe:
            lines.append((round(time.monotonic() - start, 2), line.rstrip()))
            if each is not None:
                each(line.rstrip())

    assert process.stdout is not None
    listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
    listener.start()
    came, in_time = False, True
    while process.poll() is None:
        came = until is not None and until()
        in_time = time.monotonic() - start < limit
        if came or not in_time:
            break
        time.sleep(0.02)
    seconds = time.monotonic() - start
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if came else signal.SIGABRT)
        try:
            process.wait(SECONDS_TO_SPEAK)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    listener.join(SECONDS_TO_SPEAK)
    return Ran(seconds, None if came else process.returncode, lines, in_time)
