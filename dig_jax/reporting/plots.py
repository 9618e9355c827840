"""What metrics.jsonl holds, drawn: loss.png and diversity.png."""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from dig_jax.diffusion import NUM_NOISE_LEVELS
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath
from dig_jax.reporting.figures import (
    create_figure,
    label_axes,
    mark_whole_numbers,
    save_figure,
    scale_log,
)
from dig_jax.reporting.metric_writer import (
    DIVERSITY,
    NOISE_LEVEL_LOSS,
    read_metrics,
)

BLUE, _LIGHT_BLUE = "#1f5f99", "#b5cfe6"
MARKED = {"linewidth": 1.8, "marker": "o", "markersize": 4}
_FEW = 60
"""A curve of fewer points is drawn as it is: smoothing would average nothing."""
_MAX_STEPS = 6
"""Steps in the plot of diversity; of more, the first, the last and some between."""

Curve: TypeAlias = Float[np.ndarray, "point step_and_value"]
Row: TypeAlias = tuple[int, Float[np.ndarray, "number"]]


def plot_loss(workdir: AnyPath) -> AnyPath:
    """Draws loss.png: loss, loss by noise level and gradient norm, where written.

    Raises:
        InputError: No line of metrics.jsonl has a finite loss.
    """
    metrics = read_metrics(workdir)
    loss, grad_norm = read_curve(metrics, "loss"), read_curve(metrics, "grad_norm")
    by_noise_level = _rows(metrics, NOISE_LEVEL_LOSS)
    if len(loss) == 0:
        raise nothing_to_plot(workdir, "a finite `loss`", len(metrics))
    panels = 1 + (len(by_noise_level) > 0) + (len(grad_norm) > 0)
    figure, axes = create_figure(panels)
    remaining = iter(axes)
    _plot_curve(next(remaining), loss, "Loss")
    if by_noise_level:
        _plot_noise_levels(next(remaining), by_noise_level)
    if len(grad_norm):
        _plot_curve(next(remaining), grad_norm, "Gradient norm")
    return save_figure(figure, workdir / "loss.png")


def plot_diversity(workdir: AnyPath) -> AnyPath:
    """Draws diversity.png: feature diversity over the blocks (DiG, Fig. 4), by step.

    Raises:
        InputError: No line of metrics.jsonl has a feature diversity.
    """
    metrics = read_metrics(workdir)
    rows = _rows(metrics, DIVERSITY)
    if not rows:
        raise nothing_to_plot(workdir, f"`{DIVERSITY}00`", len(metrics))
    count = min(len(rows), _MAX_STEPS)
    shown = [rows[int(i)] for i in np.linspace(0, len(rows) - 1, count).round()]
    figure, (ax,) = create_figure(1)
    for (step, values), color in zip(shown, _shades(count), strict=True):
        ax.plot(values, **MARKED, color=color, label=f"step {step:,}")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    label_axes(ax, "Block", r"Feature diversity $\|H - 1 h^{*T}\|$")
    mark_whole_numbers(ax)
    return save_figure(figure, workdir / "diversity.png")


def nothing_to_plot(workdir: AnyPath, what: str, num_lines: int) -> InputError:
    """What is told where no line has what a plot needs."""
    return InputError(
        f"A plot needs a line with {what} in {workdir}/metrics.jsonl, got "
        f"{num_lines} lines and none with it."
    )


def read_curve(metrics: list[dict[str, Any]], name: str) -> Curve:
    """The steps and values of a name; lines without it are left out."""
    points = [(m["step"], m[name]) for m in metrics if m.get(name) is not None]
    return np.array(points, np.float64).reshape(-1, 2)


def _rows(metrics: list[dict[str, Any]], prefix: str) -> list[Row]:
    """From each line that has any: its values named by the prefix and a number.

    What was not written, or was not finite, becomes NaN: a gap in the plot.
    """
    found = []
    for line in metrics:
        numbered = {
            int(name.removeprefix(prefix)): value
            for name, value in line.items()
            if name.startswith(prefix)
        }
        if numbered:
            found.append((line["step"], numbered))
    count = 1 + max((max(numbered) for _, numbered in found), default=-1)
    return [
        (step, np.array([numbered.get(n) for n in range(count)], np.float64))
        for step, numbered in found
    ]


def _plot_curve(ax, curve: Curve, label: str) -> None:
    step, value = curve.T
    smooth = _smooth(value)
    if len(value) < _FEW:
        ax.plot(step, value, **MARKED, color=BLUE)
    else:
        ax.plot(step, value, color=_LIGHT_BLUE, linewidth=0.8, label="logged")
        ax.plot(step, smooth, color=BLUE, linewidth=1.8, label="smoothed")
        ax.legend(frameon=False)
    if value.min() > 0 and smooth.max() > 5 * smooth.min():
        scale_log(ax)
    label_axes(ax, "Step", label)
    mark_whole_numbers(ax)


def _plot_noise_levels(ax, rows: list[Row]) -> None:
    """The loss over diffusion time, in the first and in the last tenth of the lines."""
    tenth = -(-len(rows) // 10)
    parts = [rows[:tenth], rows[-tenth:]] if len(rows) > 1 else [rows]
    means = [_mean_of_rows(part) for part in parts]
    for part, mean, color in zip(parts, means, _shades(len(parts)), strict=True):
        first, last = part[0][0], part[-1][0]
        steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        time = (np.arange(len(mean)) + 0.5) / NUM_NOISE_LEVELS
        ax.plot(time, mean, **MARKED, color=color, label=steps)
    known = np.concatenate([mean[np.isfinite(mean)] for mean in means])
    if len(known) and known.min() > 0 and known.max() > 5 * known.min():
        scale_log(ax)
    ax.set_xlim(0, 1)
    ax.legend(frameon=False, fontsize=8)
    label_axes(ax, "Diffusion time (0 is data, 1 is noise)", "Loss by noise level")


def _mean_of_rows(rows: list[Row]) -> Float[np.ndarray, "number"]:
    """The mean of each number over the rows that have it; NaN where none has."""
    sums, counts = np.zeros((2, max(len(values) for _, values in rows)))
    for _, values in rows:
        known = np.isfinite(values)
        sums[: len(values)] += np.where(known, values, 0)
        counts[: len(values)] += known
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _shades(count: int) -> list[Any]:
    """Colours from light to dark blue; the dark one alone for a single curve."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("", [_LIGHT_BLUE, BLUE, "#0b2540"])
    return [shades(x) for x in np.linspace(0, 1, count)] if count > 1 else [BLUE]


def _smooth(value: Float[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
    """Mean over a centred window of about a thirtieth of the run."""
    width = 2 * (len(value) // _FEW) + 1
    window = np.ones(width)
    count = np.convolve(np.ones_like(value), window, mode="same")
    return np.convolve(value, window, mode="same") / count
