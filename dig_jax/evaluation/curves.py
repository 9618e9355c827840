"""The curves of a run as pictures: those of metrics.jsonl, and scores beside real ones.

A score's curve is in metrics.jsonl; what is measured, which way is better and what real
test images reach is in eval/scores.jsonl.
"""

import contextlib
from typing import Any

import numpy as np

from dig_jax.errors import InputError
from dig_jax.evaluation.records import direction, read_records, read_scores
from dig_jax.files.paths import AnyPath
from dig_jax.metrics.scores import Score
from dig_jax.reporting.figures import (
    create_figure,
    label_axes,
    mark_whole_numbers,
    save_figure,
    scale_log,
)
from dig_jax.reporting.metric_writer import SCORE, read_metrics
from dig_jax.reporting.plots import (
    BLUE,
    MARKED,
    nothing_to_plot,
    plot_diversity,
    plot_loss,
    read_curve,
)

TITLES = {
    "copied_share": "Share of copies of training images",
    "fd": "Fréchet distance of features",
    "fid": "FID",
    "frechet_pixels": "Fréchet distance of pixels",
    "inception_score": "Inception score",
    "kid": "Kernel distance of features (KID)",
    "label_accuracy": "Share of labels that are read again",
    "precision": "Precision",
    "recall": "Recall",
    "sfid": "sFID",
}
"""What people call each family of scores; others go by their names."""
_DIRECTIONS = {"up": "↑ higher is better", "down": "↓ lower is better", None: ""}
_LOG_FROM = 20
"""Scores whose largest is so many times the smallest are drawn on a log scale."""


def plot_curves(workdir: AnyPath) -> None:
    """Draws all of them, but for those of which nothing is logged yet."""
    for plot in (plot_loss, plot_diversity, plot_scores):
        with contextlib.suppress(InputError):
            plot(workdir)


def plot_scores(workdir: AnyPath) -> AnyPath:
    """Draws scores.png: each score of the evaluations during training, over steps.

    A panel says what is measured of how many images, and which way is better; a dotted
    line is what real test images reach, where that was measured.

    Raises:
        InputError: No line of metrics.jsonl has a score.
    """
    metrics = read_metrics(workdir)
    names = sorted(
        {name for line in metrics for name in line if name.startswith(SCORE)}
    )
    if not names:
        raise nothing_to_plot(workdir, f"`{SCORE}...`", len(metrics))
    known = {
        score.name: score
        for record in read_records(workdir)
        if not record["samples"].get("parameters_digest")  # recorded by training
        for score in read_scores(record)
    }
    figure, axes = create_figure(len(names))
    for ax, name in zip(axes, names, strict=True):
        name_of_score = name.removeprefix(SCORE)
        step, value = read_curve(metrics, name).T
        ax.plot(step, value, **MARKED, color=BLUE)
        label_axes(ax, "Step", name_of_score)
        mark_whole_numbers(ax)
        _describe(ax, value, known.get(name_of_score))
    return save_figure(figure, workdir / "scores.png")


def _describe(ax: Any, values: np.ndarray, score: Score | None) -> None:
    """What a panel shows, and the real images' line; nothing of what is not known."""
    if score is None:
        return
    shown = list(values) if score.real is None else [*values, score.real]
    if min(shown) > 0 and max(shown) > _LOG_FROM * min(shown):
        scale_log(ax)
    title = TITLES.get(score.family, score.family)
    detail = f"{score.num_images:,} images"
    if score.domain:
        detail += f", classifier of {score.domain}"
    better = _DIRECTIONS[direction(score)]
    second = f"{detail}   {better}".rstrip()
    ax.set_title(f"{title}\n{second}", loc="left", fontsize=9)
    if score.real is None:
        return
    ax.axhline(score.real, color="0.4", linewidth=1, linestyle=":")
    text = f"{score.num_real:,} real test images" if score.num_real else "real images"
    ax.annotate(
        text,
        (0.98, score.real),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize=8,
        color="0.4",
        ha="right",
        va="bottom",
    )
