"""What a run measures, step by step: metrics.jsonl and TensorBoard events."""

import contextlib
import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import UInt8

from dig_jax.errors import close_after
from dig_jax.files.json_lines import read_lines, set_damage_aside, to_line
from dig_jax.files.mirror import Mirror
from dig_jax.files.paths import (
    AnyPath,
    is_remote,
    make_folder,
    naming_file,
    write_whole,
)
from dig_jax.reporting.other_writers import OtherWriters

_FILE_NAME = "metrics.jsonl"
# What the names of series begin with; a number of two digits follows.
DIVERSITY = "feature_diversity/block_"
NOISE_LEVEL_LOSS = "loss_by_noise_level/bin_"
HELD_OUT_LOSS = "held_out_loss/"
"""Before `mean`, and `bin_` and a number."""
SCORE = "score/"
"""Before a score's name, of images drawn during training."""
EVALUATION = "evaluation/"
"""Before that of `Run.evaluate`; these are in no metrics.jsonl."""


class MetricWriter:
    """Writes scalars and images of a run, for one process.

    metrics.jsonl holds one JSON object a line, with its `step` and a checksum; a line
    is handed to the system as it is written, so a killed process loses none. Strict
    JSON has no NaN and no infinity, so both become null there, and a gap in
    TensorBoard.

    A killed run may have written past its last checkpoint, and half a line. The steps
    that will be done again are therefore dropped first, from both; what cannot be read
    is set aside.

    In a bucket, which knows no appending, both are uploaded whole when they are
    flushed, and in between every half minute: a killed process loses no more lines.

    Args:
        workdir: Folder of the run, made if need be.
        resume_step: Step of the checkpoint that the run goes on from; lines up to it
            are kept. None for a run from the start: no line is kept.
        others: Are given all of it too, but texts.
    """

    def __init__(
        self,
        workdir: AnyPath,
        *,
        resume_step: int | None,
        others: OtherWriters | None = None,
    ) -> None:
        from tensorboardX import SummaryWriter

        last_step = -1 if resume_step is None else resume_step
        make_folder(workdir)
        self._others = others or OtherWriters({}, print)
        self._mirror, folder = None, Path(workdir)
        if is_remote(workdir):
            self._mirror = Mirror(workdir)
            folder = self._mirror.folder
        set_damage_aside(workdir / _FILE_NAME)
        kept = [m for m in read_metrics(workdir) if m["step"] <= last_step]
        self._path = folder / _FILE_NAME
        text = "".join(map(to_line, kept)).encode()
        if not self._path.is_file() or self._path.read_bytes() != text:
            write_whole(self._path, text)
        self._lines = self._path.open("a", encoding="utf-8")
        # TensorBoard forgets what earlier files hold from purge_step on. Their names
        # tell the second alone, and a file of the same second would be overwritten.
        first_step = last_step + 1
        self._events = SummaryWriter(
            str(folder),
            purge_step=first_step,
            flush_secs=30,
            filename_suffix=f".from_step_{first_step}",
        )

    def write(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Writes one line, and one TensorBoard scalar for each name.

        Raises:
            FileNotFoundError: The file has gone, as with its folder.
            OSError: The disk is full.
        """
        assert "step" not in scalars, "the step is written anyway"
        values = {
            name: float(value) if math.isfinite(value) else None
            for name, value in scalars.items()
        }
        with naming_file(self._path):
            self._check_still_there()
            self._lines.write(to_line({"step": step} | values))
            self._lines.flush()
        finite = {name: value for name, value in values.items() if value is not None}
        for name, value in finite.items():
            self._events.add_scalar(name, value, step)
        self._others.write(step, finite)

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """Shows an image in TensorBoard."""
        self._events.add_image(name, image, step, dataformats="HWC")
        self._others.write_image(name, step, image)

    def write_text(self, name: str, step: int, text: str) -> None:
        """Shows a text in TensorBoard, line by line as it is."""
        as_code = "".join(f"    {line}\n" for line in text.splitlines())  # of Markdown
        self._events.add_text(name, as_code, step)

    def _check_still_there(self) -> None:
        """Writing to a file whose folder was deleted or moved raises nothing."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(self._path.stat(), os.fstat(self._lines.fileno())):
                return
        raise FileNotFoundError(
            errno.ENOENT,
            "it was deleted or moved while the run trained",
            str(self._path),
        )

    def flush(self) -> None:
        """Hands everything written so far to the system, or to the bucket."""
        self._lines.flush()
        self._events.flush()
        self._others.flush()
        if self._mirror is not None:
            self._mirror.try_upload()

    def close(self) -> None:
        """Flushes and closes both files, and the other writers.

        Raises:
            OSError: The bucket cannot be reached.
        """
        self._lines.close()
        self._events.close()
        self._others.close()
        if self._mirror is not None:
            self._mirror.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        close_after(error, self.close, OSError)


def read_metrics(workdir: AnyPath) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, in order; [] where there are none.

    None stands for a value that was not finite. A line that is damaged, or half
    written, is left out with a warning.
    """
    lines = read_lines(workdir / _FILE_NAME)
    return [metrics for metrics in lines if type(metrics.get("step")) is int]
