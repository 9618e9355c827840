"""Figures: how axes look here, and a file for them."""

from typing import Any

import numpy as np

from dig_jax.files.paths import AnyPath
from dig_jax.reporting.images import write_png


def create_figure(panels: int) -> tuple[Any, Any]:
    """A figure and its panels, at most four side by side."""
    from matplotlib.figure import Figure

    columns = min(panels, 4)
    rows = -(-panels // columns)
    size = (4.8 * columns, 3.6 * rows)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.remove()
    return figure, axes[:panels]


def save_figure(figure: Any, path: AnyPath) -> AnyPath:
    """Write a figure as PNG, whole or not at all; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
    return path


def label_axes(ax: Any, xlabel: str, ylabel: str = "") -> None:
    """Say what the axes are, on a light grid."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def scale_log(ax: Any) -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def mark_whole_numbers(ax: Any) -> None:
    """A few whole numbers along the x axis."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
