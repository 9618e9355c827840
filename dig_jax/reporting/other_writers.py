"""Where metrics, scores and pictures go beside the workdir: TensorBoard elsewhere, W&B.

Nothing of a run depends on these. One that cannot be opened or written is told in one
line and left out from then on; the run goes on, and its workdir has everything.
"""

import contextlib
import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from dig_jax.errors import InputError
from dig_jax.files.mirror import Mirror
from dig_jax.files.paths import (
    AnyPath,
    is_remote,
    make_folder,
    open_path,
    read_text,
    write_whole,
)
from dig_jax.options import LoggingOptions

RUN_ID_FILE = "wandb_id"
"""In the workdir: which run of Weights & Biases it is."""
SECONDS_TO_REACH_WANDB = 30.0
SECONDS_TO_FINISH_UPLOADS = 60.0


class OtherWriter(Protocol):
    """What `OtherWriters` asks of each; any of it may raise anything."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take finite numbers of a step."""

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """Take a picture."""

    def flush(self) -> None:
        """Hand everything to the system."""

    def close(self) -> None:
        """Hand everything over, and end."""


class OtherWriters:
    """Several writers that a run can do without.

    Args:
        makers: What opens each, by its name; from what it returns, and a line that says
            where it writes.
        say: Takes a line for the user.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], tuple[OtherWriter, str]]],
        say: Callable[[str], None],
    ) -> None:
        self._writers: dict[str, OtherWriter] = {}
        self._say = say
        for name, make in makers.items():
            with self._left_out_if_it_fails(name):
                self._writers[name], where = make()
                say(f"{name}: {where}")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write finite numbers of a step."""
        self._each(lambda writer: writer.write(step, scalars))

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """Write a picture."""
        self._each(lambda writer: writer.write_image(name, step, image))

    def flush(self) -> None:
        """Hand everything written so far to the system."""
        self._each(lambda writer: writer.flush())

    def close(self) -> None:
        """Hand everything over, and end."""
        self._each(lambda writer: writer.close())
        self._writers.clear()

    def _each(self, do: Callable[[OtherWriter], None]) -> None:
        for name, writer in list(self._writers.items()):
            with self._left_out_if_it_fails(name):
                do(writer)

    @contextlib.contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of files, networks and services: whatever it is
            self._writers.pop(name, None)
            said = " ".join(str(error).split())[:300]
            self._say(
                f"{name} gets nothing more from this start, which goes on without it: "
                f"{said or type(error).__name__}"
            )


def check_writers(options: LoggingOptions) -> None:
    """Raise InputError where a writer needs a package that is not installed."""
    if "wandb" in options.writers and importlib.util.find_spec("wandb") is None:
        raise InputError(
            "config.logging.writers has wandb, which is not installed: pip install "
            "wandb. Without it: --config.logging.writers="
        )


def open_other_writers(
    options: LoggingOptions,
    workdir: AnyPath,
    first_step: int | None,
    config: Mapping[str, Any],
    say: Callable[[str], None],
) -> OtherWriters:
    """The writers that a configuration names.

    Args:
        options: The logging section.
        workdir: The run's.
        first_step: The first step that they will be given: TensorBoard forgets what it
            was told of it, and of those after it, by an earlier start. None where it
            shall forget nothing.
        config: The run's, to be shown; {} for what was shown before.
        say: Takes a line for the user.
    """
    makers = {
        "tensorboard": lambda: _open_events(options, workdir, first_step),
        "wandb": lambda: _open_wandb(options, workdir, config),
    }
    return OtherWriters({name: makers[name] for name in options.writers}, say)


class EventFile:
    """A file of TensorBoard events, written at once, so that errors are its caller's.

    Args:
        folder: Local, or in a bucket, to which the file is uploaded when it is flushed.
        first_step: As for `open_other_writers`.
    """

    def __init__(self, folder: AnyPath, first_step: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        make_folder(folder)
        self._mirror, local = None, Path(folder)
        if is_remote(folder):
            self._mirror = Mirror(folder)
            local = self._mirror.folder
        self._event, session = event_pb2.Event, event_pb2.SessionLog
        # The file's name has the second; two of one second must not be one file.
        what = "evaluation" if first_step is None else f"from_step_{first_step}"
        suffix = f".{what}.{secrets.token_hex(4)}"
        self._file = EventsWriter(str(local / "events"), suffix)
        if first_step is not None:
            start = session(status=session.START)
            self._add(step=first_step, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One scalar for each name."""
        from tensorboardX import summary

        for name, value in scalars.items():
            self._add(step=step, summary=summary.scalar(name, value))

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """One image."""
        from tensorboardX import summary

        shown = summary.image(name, image, dataformats="HWC")
        self._add(step=step, summary=shown)

    def flush(self) -> None:
        """Hand the file to the system, or to the bucket."""
        self._file.flush()
        if self._mirror is not None:
            self._mirror.upload()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._mirror is not None:
            self._mirror.close()

    def _add(self, **content: Any) -> None:
        self._file.write_event(self._event(wall_time=time.time(), **content))


def _open_events(
    options: LoggingOptions, workdir: AnyPath, first_step: int | None
) -> tuple[EventFile, str]:
    name = workdir.name or Path(workdir).absolute().name
    folder = open_path(options.tensorboard_dir) / name
    return EventFile(folder, first_step), f"events in {folder}"


class WandbRun:
    """A run of Weights & Biases.

    Its steps are a metric of their own, `step`, by which the others are drawn: so
    the steps that a resumed run takes again are shown where they were.

    Args:
        options: The logging section.
        workdir: The run's. It keeps the run's id, and in `wandb/` what is not uploaded,
            unless the variable WANDB_DIR says otherwise.
        config: The run's configuration.

    Raises:
        Exception: Of the network, of the account, of the disk.
    """

    def __init__(
        self, options: LoggingOptions, workdir: AnyPath, config: Mapping[str, Any]
    ) -> None:
        import wandb

        self._image = wandb.Image
        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=SECONDS_TO_REACH_WANDB,
            finish_timeout=SECONDS_TO_FINISH_UPLOADS,
        )
        offline = os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and not wandb.login(prompt=False):
            raise ConnectionError(
                "no API key: run `wandb login`, or set WANDB_MODE=offline"
            )
        elsewhere = is_remote(workdir) or "WANDB_DIR" in os.environ
        self.run = wandb.init(
            project=options.wandb_project,
            entity=options.wandb_entity or None,
            id=_run_id(workdir),
            name=workdir.name or Path(workdir).absolute().name,
            resume="allow",
            dir=None if elsewhere else str(workdir),
            config=dict(config),
            allow_val_change=True,
            settings=settings,
            reinit="create_new",
        )
        self.run.define_metric("*", step_metric="step")

    @property
    def place(self) -> str:
        """Where it is: its page or, offline, its folder."""
        if self.run.offline:
            folder = self.run.settings.sync_dir
            return f"offline, in {folder}; to upload it: wandb sync {folder}"
        return str(self.run.url)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One row."""
        self.run.log({"step": step, **scalars})

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """One image, in a row of its own."""
        self.run.log({"step": step, name: self._image(image)})

    def flush(self) -> None:
        """Nothing is left to do: W&B's own process has it already."""

    def close(self) -> None:
        """Wait for uploads, a minute at most; the rest stays for `wandb sync`."""
        self.run.finish()


def _open_wandb(
    options: LoggingOptions, workdir: AnyPath, config: Mapping[str, Any]
) -> tuple[WandbRun, str]:
    run = WandbRun(options, workdir, config)
    return run, run.place


def _run_id(workdir: AnyPath) -> str:
    """The id of the workdir's run, made when it is first asked for."""
    path = workdir / RUN_ID_FILE
    if path.is_file():
        return read_text(path).strip()
    run_id = secrets.token_hex(8)
    write_whole(path, run_id + "\n")
    return run_id
