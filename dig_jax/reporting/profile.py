"""A trace of some training steps, for TensorBoard's profiler (XProf) and Perfetto."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dig_jax.devices.sharding import is_first_process
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, is_remote, upload

FOLDER = "profile"


class ProfileSteps(NamedTuple):
    """The steps to be traced, from the first to the last, both with them."""

    first: int
    last: int


class Profiler:
    """Traces some steps of a run into a folder, in process 0; costs nothing otherwise.

    Entered, it ends its trace also where the run ends in the midst of one.

    Args:
        workdir: Folder of the run; the trace goes into `profile/` there.
        steps: Which steps; None for none.
    """

    def __init__(self, workdir: AnyPath, steps: ProfileSteps | None) -> None:
        self._folder = workdir / FOLDER
        nothing = ProfileSteps(0, 0)
        self._steps = steps if steps and is_first_process() else nothing
        self._tracing: int | None = None  # since which step
        self._written = ""  # where the trace is written

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracing is not None:
            self._stop()

    def step(self, step: int) -> contextlib.AbstractContextManager[Any]:
        """To be entered while a step is handed to the device."""
        if not self._steps.first <= step <= self._steps.last:
            return contextlib.nullcontext()
        if self._tracing is None:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it made six steps' trace 17 MB
            # The profiler writes local files alone.
            remote = is_remote(self._folder)
            self._written = tempfile.mkdtemp() if remote else str(self._folder)
            jax.profiler.start_trace(
                self._written, create_perfetto_trace=True, profiler_options=options
            )
            self._tracing = step
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def is_due(self, step: int) -> bool:
        """Whether the trace ends after a step."""
        return self._tracing is not None and step == self._steps.last

    def finish(self, outputs: Any) -> str:
        """End the trace when the outputs of its last step are there.

        Returns:
            What to tell of it.
        """
        jax.block_until_ready(outputs)
        first = self._tracing
        self._stop()
        return (
            f"Traced steps {first} to {self._steps.last} into {self._folder}: open it "
            f"with `tensorboard --logdir={self._folder}` (pip install tensorboard "
            "xprof), or perfetto_trace.json.gz in it with https://ui.perfetto.dev."
        )

    def _stop(self) -> None:
        self._tracing = None
        jax.profiler.stop_trace()
        if is_remote(self._folder):
            written = Path(self._written)
            for file in written.rglob("*"):
                if file.is_file():
                    upload(file, self._folder / file.relative_to(written))
            shutil.rmtree(written)


def parse_profile_steps(text: str) -> ProfileSteps:
    """The steps that --profile_steps=FIRST:LAST names.

    Raises:
        InputError: It names none.
    """
    first, _, last = text.partition(":")
    if not (_is_number(first) and _is_number(last) and 1 <= int(first) <= int(last)):
        raise InputError(
            "--profile_steps must be FIRST:LAST, two steps from 1 on, the first not "
            f"after the last, such as 10:15, got {text!r}."
        )
    return ProfileSteps(int(first), int(last))


def check_profile_steps(steps: ProfileSteps | None, num_steps: int) -> None:
    """Raise InputError unless the run has these steps.

    A run that was past them when it started again traces none: the same command goes on
    after an interruption.
    """
    if steps is not None and steps.last > num_steps:
        raise InputError(
            f"--profile_steps must lie in 1 to {num_steps}, the run's steps, got "
            f"{steps.first}:{steps.last}."
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
