"""Plots of a comparison: quality over each budget, noise levels, diversity, images."""

from functools import partial
from typing import Any

import numpy as np
from absl import logging

from dig_jax.comparison.noise_levels import has_reference_sde, noise_levels
from dig_jax.comparison.points import run_folder, scores_at_end
from dig_jax.comparison.verdict import rank
from dig_jax.errors import InputError
from dig_jax.evaluation import real_of
from dig_jax.evaluation.real_beside import name_real_of
from dig_jax.files.npz import any_header, open_npz
from dig_jax.files.paths import AnyPath, written_whole
from dig_jax.interfaces import LabelledImages
from dig_jax.reporting.figures import label_axes, mark_whole_numbers, scale_log
from dig_jax.reporting.images import choose_scale, image_grid
from dig_jax.sampling.drawing import SAMPLES
from dig_jax.sampling.samples import read_samples

_MARKERS = "osD^v<>PX*hd"
_IMAGES_A_ROW = 20


def plot_comparison(
    record: dict[str, Any], workdir: AnyPath, real: LabelledImages | None = None
) -> None:
    """Write quality.png, noise_levels.png, diversity.png and samples.png.

    Args:
        record: The comparison's.
        workdir: Where its runs are, and the plots will be.
        real: Test images, for a row below the drawn ones.
    """
    variants = [variant for variant in record["variants"] if variant["runs"]]
    if not variants:
        return
    import matplotlib

    matplotlib.use("Agg")
    colors = matplotlib.colormaps["tab10" if len(variants) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    style = {
        variant["name"]: {
            "color": colors[i % len(colors)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 4,
            "linewidth": 1.6,
        }
        for i, variant in enumerate(variants)
    }
    _plot_quality(record, variants, style, workdir / "quality.png")
    _plot_noise_levels(record, variants, style, workdir / "noise_levels.png")
    _plot_diversity(variants, style, workdir / "diversity.png")
    _plot_samples(rank(record), workdir, real)


def _plot_quality(
    record: dict[str, Any], variants: list[dict], style: dict, path: AnyPath
) -> None:
    """The score at each evaluation over images seen, MACs spent, and seconds."""
    from matplotlib.figure import Figure

    quality = record["quality"]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for variant in variants:
        length = max(len(run["points"]) for run in variant["runs"])
        complete = [run for run in variant["runs"] if len(run["points"]) == length]
        values = np.array([[p[quality] for p in run["points"]] for run in complete])
        steps = [point["checkpoint_step"] for point in complete[0]["points"]]
        images = np.array(steps) * variant["batch_size"]
        budgets = (
            images / 1e3,
            images * variant["training_macs_per_image"] / 1e12,
            images / variant["images_per_second"],
        )
        for ax, budget in zip(axes, budgets, strict=True):
            line = style[variant["name"]]
            ax.plot(budget, values.mean(axis=0), label=variant["name"], **line)
            if len(values) > 1:
                ax.fill_between(
                    budget,
                    values.min(axis=0),
                    values.max(axis=0),
                    color=line["color"],
                    alpha=0.12,
                    linewidth=0,
                )
    labels = ("Images seen (thousands)", "MACs spent (tera)", "Seconds of training")
    for ax, label in zip(axes, labels, strict=True):
        label_axes(ax, label)
        ax.set_xlim(left=0)
    axes[0].set_ylabel(quality)
    if all(p[quality] > 0 for v in variants for r in v["runs"] for p in r["points"]):
        scale_log(axes[0])
    real = real_of(variants[0]["runs"][0]["points"][-1], quality)
    if real:
        for ax in axes:
            ax.axhline(real, color="0.4", linewidth=1, linestyle=":")
        axes[0].annotate(
            name_real_of(s for s in scores_at_end(record) if s.name == quality),
            (0.02, real),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color="0.4",
            va="bottom",
        )
    _legend(figure, axes[0])
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=130)


def _plot_noise_levels(
    record: dict[str, Any], variants: list[dict], style: dict, path: AnyPath
) -> None:
    """Held-out loss over the reference's, in each bin of t."""
    from matplotlib.figure import Figure

    levels_of = {
        variant["name"]: noise_levels(variant, "eps")
        for variant in variants
        if has_reference_sde(variant)
    }
    base = levels_of.get(record["reference"])
    if base is None:
        return
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    ax = figure.subplots()
    for name, levels in levels_of.items():
        centres = (np.arange(len(levels)) + 0.5) / len(levels)
        ax.plot(centres, levels / base, label=name, **style[name])
    ylabel = f"Held-out loss (eps) over {record['reference']}'s"
    label_axes(ax, "t (0 is data, 1 is noise)", ylabel)
    _legend(figure, ax)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=130)


def _plot_diversity(variants: list[dict], style: dict, path: AnyPath) -> None:
    """Feature diversity after each block at the end of training (DiG, Fig. 4).

    Nothing is written where it was not measured.
    """
    if not any(run["feature_diversity"] for v in variants for run in v["runs"]):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    ax = figure.subplots()
    for variant in variants:
        curves = [run["feature_diversity"] for run in variant["runs"]]
        curves = [curve for curve in curves if curve]
        if curves:
            mean = np.mean(np.array(curves, np.float64), axis=0)
            ax.plot(mean, label=variant["name"], **style[variant["name"]])
    label_axes(ax, "Block", r"Feature diversity $\|H - 1 h^{*T}\|$")
    ax.set_ylim(bottom=0)
    mark_whole_numbers(ax)
    _legend(figure, ax)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=130)


def _plot_samples(
    variants: list[dict], workdir: AnyPath, real: LabelledImages | None
) -> None:
    """The first images of each variant, of the first seed, from the same noise.

    The best one is above, and below them all are real images of the same labels.
    """
    from matplotlib.figure import Figure

    names, rows, columns_of, drawn = [], [], [], None
    for variant in variants:
        seed = variant["runs"][0]["seed"]
        path = run_folder(workdir, variant["name"], seed) / SAMPLES
        if path.is_file():
            try:
                drawn = read_samples(path)[0]
                columns = _names_of_labels(path)[:_IMAGES_A_ROW]
            except InputError as error:
                logging.warning("%s Its images are left out.", error)
                continue
            names.append(variant["name"])
            rows.append(drawn.images[:_IMAGES_A_ROW])
            columns_of.append(columns)
    if drawn is not None and real is not None:
        labels = drawn.labels[:_IMAGES_A_ROW]
        named = labels.any() or columns_of[-1]  # else there are no labels
        names.append("real test images")
        rows.append(_like(labels, real, drawn.images.shape[1:], any_of=not named))
    if not rows:
        return
    columns = len(rows[0])
    scale = choose_scale(2 * rows[0].shape[1])
    grid = image_grid(np.concatenate(rows), columns, scale=scale)
    cell = grid.shape[0] / len(rows)
    figure = Figure(figsize=(0.6 * columns, 0.6 * len(rows)))
    ax = figure.subplots()
    ax.imshow(grid, interpolation="nearest")
    ax.set_yticks((np.arange(len(rows)) + 0.5) * cell, names, fontsize=9)
    ax.set_xticks([])
    if columns_of[0] and all(found == columns_of[0] for found in columns_of):
        width = grid.shape[1] / columns
        places = (np.arange(columns) + 0.5) * width
        ax.set_xticks(places, columns_of[0], fontsize=8, rotation=90)
        ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    with written_whole(workdir / "samples.png") as unfinished:
        figure.savefig(unfinished, dpi=130, bbox_inches="tight")


def _like(
    labels: np.ndarray, real: LabelledImages, shape: tuple[int, ...], *, any_of: bool
) -> np.ndarray:
    """A real image for each label, [image, row, col, rgb], none twice; else white.

    With `any_of` those of any label.
    """
    images = np.full((len(labels), *shape), 255, np.uint8)
    left = list(range(len(real.images)))
    for column, label in enumerate(labels):
        found = next((i for i in left if any_of or real.labels[i] == label), None)
        if found is not None and real.images.shape[1:] == shape:
            left.remove(found)
            images[column] = real.images[found]
    return images


def _names_of_labels(path: AnyPath) -> list[str]:
    """The class of each image of a samples.npz; none where it names no classes."""
    with open_npz(path) as npz:
        if "class_names" not in npz:
            return []
        read = partial(npz.read, max_bytes=2**20, limit="of names")
        names = read("class_names", any_header)
    return [str(names[label]) for label in read_samples(path)[0].labels]


def _legend(figure, ax) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
