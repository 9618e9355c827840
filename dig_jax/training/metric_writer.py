"""What a run measures, step by step: metrics.jsonl, TensorBoard events and loss.png."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Float, UInt8

from dig_jax.errors import InputError
from dig_jax.images import write_png

_FILE_NAME = "metrics.jsonl"
_DIVERSITY = "feature_diversity/"
_BLUE, _LIGHT_BLUE, _GREEN = "#1f5f99", "#b5cfe6", "#2a7f5f"
_FEW = 60
"""A curve of fewer points is drawn as it is: smoothing would average nothing."""


class MetricWriter:
    """Writes scalars and images of a run, for one process.

    metrics.jsonl holds one JSON object a line, with its `step`; a line is handed to the
    system as it is written, so a killed process loses none. Strict JSON has no NaN and
    no infinity, so both become null there, and a gap in TensorBoard.

    A killed run may have written past its last checkpoint, and half a line. The steps
    that will be done again are therefore dropped first, from both.

    Args:
        workdir: Folder of the run, made if need be.
        resume_step: Step of the checkpoint that the run goes on from; lines up to it
            are kept. None for a run from the start: no line is kept.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], *, resume_step: int | None
    ) -> None:
        from tensorboardX import SummaryWriter

        last_step = -1 if resume_step is None else resume_step
        path = Path(workdir) / _FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_lines_after(path, last_step)
        self._lines = path.open("a", encoding="utf-8")
        # TensorBoard forgets what earlier files hold from purge_step on. Their names
        # tell the second alone, and a file of the same second would be overwritten.
        first_step = last_step + 1
        self._events = SummaryWriter(
            str(workdir),
            purge_step=first_step,
            flush_secs=30,
            filename_suffix=f".from_step_{first_step}",
        )

    def write(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        """Writes one line, and one TensorBoard scalar for each name."""
        assert "step" not in scalars, "the step is written anyway"
        values = {
            name: float(value) if math.isfinite(value) else None
            for name, value in scalars.items()
        }
        line = json.dumps({"step": step} | values, allow_nan=False)
        self._lines.write(line + "\n")
        self._lines.flush()
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(name, value, step)

    def write_image(
        self, name: str, step: int, image: UInt8[np.ndarray, "row col rgb"]
    ) -> None:
        """Shows an image in TensorBoard."""
        self._events.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Hands everything written so far to the system."""
        self._lines.flush()
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes both files."""
        self._lines.close()
        self._events.close()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, in order; [] where there are none.

    None stands for a value that was not finite. Half a line, of a process that was
    killed or is still writing, is left out.
    """
    path = Path(workdir) / _FILE_NAME
    return [metrics for _, metrics in _parse(_read_text(path))]


def plot_loss(workdir: str | os.PathLike[str]) -> Path:
    """Draws loss.png: loss, gradient norm and last feature diversity, where written.

    Raises:
        InputError: No line of metrics.jsonl has a finite loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = read_metrics(workdir)
    loss = _curve(metrics, "loss")
    grad_norm = _curve(metrics, "grad_norm")
    diversity = _last_diversity(metrics)
    if len(loss) == 0:
        raise InputError(
            f"A loss curve needs a line with a finite `loss` in {Path(workdir)}/"
            f"{_FILE_NAME}, got {len(metrics)} lines and none with it."
        )
    panels = 1 + (len(grad_norm) > 0) + (diversity is not None)
    figure = Figure(figsize=(4.8 * panels, 3.6), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = iter(figure.subplots(1, panels, squeeze=False)[0])
    _plot_curve(next(axes), loss, "Loss")
    if len(grad_norm):
        _plot_curve(next(axes), grad_norm, "Gradient norm")
    if diversity is not None:
        _plot_diversity(next(axes), *diversity)
    canvas.draw()
    path = Path(workdir) / "loss.png"
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
    return path


def _read_text(path: Path) -> str:
    # A crash of the machine can leave bytes that are no text: they parse as no line.
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Each whole line and what it says; no part of an object is itself JSON."""
    parsed = []
    for line in text.splitlines():
        try:
            metrics = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(metrics, dict) and isinstance(metrics.get("step"), int):
            parsed.append((line, metrics))
    return parsed


def _drop_lines_after(path: Path, last_step: int) -> None:
    text = _read_text(path)
    kept = "".join(
        f"{line}\n" for line, metrics in _parse(text) if metrics["step"] <= last_step
    )
    if kept == text:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _curve(
    metrics: list[dict[str, Any]], name: str
) -> Float[np.ndarray, "point step_and_value"]:
    points = [(m["step"], m[name]) for m in metrics if m.get(name) is not None]
    return np.array(points, np.float64).reshape(-1, 2)


def _last_diversity(
    metrics: list[dict[str, Any]],
) -> tuple[int, Float[np.ndarray, "block"]] | None:
    """Step and feature diversity of each block where it was last written."""
    for line in reversed(metrics):
        names = sorted(name for name in line if name.startswith(_DIVERSITY))
        if names:
            # null, for what was not finite, becomes NaN again: a gap in the curve.
            return line["step"], np.array([line[name] for name in names], np.float64)
    return None


def _plot_curve(
    ax, curve: Float[np.ndarray, "point step_and_value"], label: str
) -> None:
    step, value = curve.T
    smooth = _smooth(value)
    if len(value) < _FEW:
        ax.plot(step, value, color=_BLUE, linewidth=1.8, marker="o", markersize=4)
    else:
        ax.plot(step, value, color=_LIGHT_BLUE, linewidth=0.8, label="logged")
        ax.plot(step, smooth, color=_BLUE, linewidth=1.8, label="smoothed")
        ax.legend(frameon=False)
    if value.min() > 0 and smooth.max() > 5 * smooth.min():
        _log_scale(ax)
    _finish(ax, "Step", label)


def _plot_diversity(ax, step: int, diversity: Float[np.ndarray, "block"]) -> None:
    ax.plot(
        np.arange(len(diversity)),
        diversity,
        color=_GREEN,
        linewidth=1.8,
        marker="o",
        markersize=4,
    )
    ax.set_title(f"step {step:,}", fontsize=10)
    ax.set_ylim(bottom=0)
    _finish(ax, "Block", r"Feature diversity $\|H - 1 h^{*T}\|$")


def _log_scale(ax) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _finish(ax, xlabel: str, ylabel: str) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    ax.spines[["top", "right"]].set_visible(False)


def _smooth(value: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    """Mean over a centred window of about a thirtieth of the run."""
    width = 2 * (len(value) // _FEW) + 1
    window = np.ones(width)
    count = np.convolve(np.ones_like(value), window, mode="same")
    return np.convolve(value, window, mode="same") / count
