"""compare.json, compare.md and the plots of a comparison, as far as it has come."""

import json
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from dig_jax.comparison.measure import Speed
from dig_jax.comparison.noise_levels import has_reference_sde, noise_levels
from dig_jax.comparison.plan import Plan, Variant
from dig_jax.comparison.plots import plot_comparison
from dig_jax.comparison.points import read_points
from dig_jax.evaluation import real_of
from dig_jax.experiment import differing_keys
from dig_jax.files.paths import AnyPath, write_whole
from dig_jax.files.shown import in_markdown
from dig_jax.reporting.metric_writer import read_metrics

# Forward, and backward with respect to activations and to weights.
PASSES_A_STEP = 3


def write_report(plan: Plan, speeds: dict[str, Speed], workdir: AnyPath) -> None:
    """Write what is known so far into the workdir."""
    record = comparison_record(plan, speeds, workdir)
    text = format_comparison(record)
    for name, content in (
        ("compare.json", json.dumps(record, indent=1)),
        ("compare.md", text),
    ):
        write_whole(workdir / name, content)
    plot_comparison(record, workdir)


def comparison_record(
    plan: Plan, speeds: dict[str, Speed], workdir: AnyPath
) -> dict[str, Any]:
    """Everything that was decided and measured, as one JSON object."""
    options, reference = plan.options, plan.reference
    experiment = reference.experiment
    device = jax.devices()[0]
    return {
        "budget": options.budget,
        "reference": options.reference,
        "quality": options.quality,
        "seeds": list(options.seeds),
        "device": f"{jax.device_count()} x {device.device_kind}",
        "jax": jax.__version__,
        "data": experiment.section("data"),
        "batch_size": experiment.training.batch_size,
        "sde": experiment.section("sde"),
        "objective": experiment.section("objective"),
        "optimizer": experiment.section("optimizer"),
        "sample": experiment.section("sample"),
        "variants": [
            _variant_record(variant, speeds[variant.name], plan, workdir)
            for variant in plan.variants
        ],
    }


def _variant_record(
    variant: Variant, speed: Speed, plan: Plan, workdir: AnyPath
) -> dict[str, Any]:
    experiment = variant.experiment
    runs = []
    for seed in plan.options.seeds:
        folder = workdir / "runs" / f"{variant.name}-{seed}"
        if points := read_points(folder):
            runs.append(
                {
                    "seed": seed,
                    "points": [points[step] for step in sorted(points, key=int)],
                    "feature_diversity": _last_diversity(folder),
                }
            )
    all_macs = variant.macs + variant.attention_macs
    return {
        "name": variant.name,
        "backbone": experiment.backbone_options.name,
        "width": experiment.backbone_options.keywords.get("width"),
        "differs": differing_keys(plan.reference.experiment, experiment),
        "num_steps": experiment.training.num_steps,
        "batch_size": experiment.training.batch_size,
        "params": variant.params,
        "macs_per_image": variant.macs,
        "attention_macs_per_image": variant.attention_macs,
        "training_macs_per_image": PASSES_A_STEP * all_macs,
        **speed._asdict(),
        "runs": runs,
    }


def format_comparison(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    data, sample = record["data"], record["sample"]
    equal = {
        "macs": "multiply-accumulates an image (by the choice of the width)",
        "parameters": "parameters (by the choice of the width)",
        "seconds": "seconds of training (by the number of steps)",
        "none": "nothing but the number of steps",
    }[record["budget"]]
    size = data["image_size"]
    sections = [
        f"# Comparison on {data.get('title') or data['name']}, {size} pixels",
        f"Equal for all: {equal}; data, order of batches, times, noise, optimizer and "
        f"averaging of parameters. Reference: {record['reference']}. Seeds: "
        f"{', '.join(map(str, record['seeds']))}; a variant's row says how many have "
        f"been run. Batches of {record['batch_size']}. Samples: {sample['num_images']} "
        f"images by {sample['solver']} in {sample['num_steps']} steps. Measured on "
        f"{record['device']}, jax {record['jax']}.",
        "## Cost",
        _cost_table(record),
        f"MACs are multiply-accumulates of matrix products and convolutions for one "
        f"image, forward; a training step is counted as {PASSES_A_STEP} of them. "
        "Images/s and memory are those of the training step, measured in turn (median, "
        "slowest to fastest round); memory is the compiler's account.",
        "## At the end of training",
        _quality_table(record),
        "Mean over seeds, ± the standard deviation between them. Difference: of "
        f"{record['quality']} from the reference with the same seed, ± its standard "
        "error. Held-out loss: of test images at noise levels spread evenly over t, "
        "with the averaged parameters; left out under another SDE, where a time is "
        "another noise level.",
        f"## {record['quality']} along training",
        _progress_table(record),
        "## Held-out loss by noise level",
        "Squared error of the noise (eps) in ten bins of t, over the reference's.",
        _noise_table(record),
        "## What differs from the reference",
        _differences(record),
    ]
    return "\n\n".join(sections) + "\n"


def _cost_table(record: dict[str, Any]) -> str:
    reference = _reference(record)
    rows = []
    for variant in record["variants"]:
        slow, fast = variant["images_per_second_range"]
        rate = variant["images_per_second"] / reference["images_per_second"]
        attention = variant["attention_macs_per_image"]
        all_macs = variant["macs_per_image"] + attention
        rows.append(
            [
                variant["name"],
                variant["backbone"],
                str(variant["width"]),
                f"{variant['params'] / 1e6:.3f}",
                f"{all_macs / 1e6:.2f}",
                f"{attention / all_macs:.0%}" if attention else "",
                f"{variant['num_steps']:,}",
                f"{variant['images_per_second']:.0f} ({slow:.0f} to {fast:.0f})",
                f"{rate:.2f}",
                _mebibytes(variant["peak_bytes"]),
            ]
        )
    head = (
        "variant",
        "backbone",
        "width",
        "parameters (M)",
        "MACs an image (M)",
        "of them attention",
        "steps",
        "images/s in training",
        "of the reference's",
        "memory (MiB)",
    )
    return _table(head, rows, left=2)


def _quality_table(record: dict[str, Any]) -> str:
    scores = _score_names(record)
    rows = []
    for variant in record["variants"]:
        ends = [run["points"][-1] for run in variant["runs"]]
        cells = [variant["name"], str(len(ends))]
        cells += [_spread([end[name] for end in ends]) for name in scores]
        cells.append(_paired_difference(record, variant))
        for space in ("eps", "x0"):
            means = [np.mean(end["noise_levels"][space]) for end in ends]
            cells.append(_spread(means) if has_reference_sde(variant) else "")
        rows.append(cells)
    real = _first_end(record)
    if real is not None:
        real_scores = [f"{real_of(real, name):.4f}" for name in scores]
        rows.append(["real test images", "", *real_scores, "", "", ""])
    head = ("variant", "seeds", *scores, "difference", "loss (eps)", "loss (x0)")
    return _table(head, rows)


def _progress_table(record: dict[str, Any]) -> str:
    num_points = max(
        (
            len(run["points"])
            for variant in record["variants"]
            for run in variant["runs"]
        ),
        default=0,
    )
    rows = []
    for variant in record["variants"]:
        cells = [variant["name"]]
        for point in range(num_points):
            values = [
                run["points"][point][record["quality"]]
                for run in variant["runs"]
                if point < len(run["points"])
            ]
            cells.append(_spread(values))
        rows.append(cells)
    head = [f"{i + 1}/{num_points} of the steps" for i in range(num_points)]
    return _table(("variant", *head), rows)


def _noise_table(record: dict[str, Any]) -> str:
    reference, rows = _reference(record), []
    for variant in record["variants"] if reference["runs"] else ():
        if not variant["runs"] or not has_reference_sde(variant):
            continue
        levels = noise_levels(variant, "eps")
        if variant["name"] == record["reference"]:
            cells = [f"{value:.4f}" for value in levels]
            rows.append([f"{variant['name']} itself", *cells])
        else:
            ratios = levels / noise_levels(reference, "eps")
            rows.append([variant["name"], *(f"{value:.3f}" for value in ratios)])
    head = [f"t {i / 10:.1f} to {(i + 1) / 10:.1f}" for i in range(10)]
    return _table(("variant", *head), rows)


def _differences(record: dict[str, Any]) -> str:
    lines = []
    for variant in record["variants"]:
        if variant["name"] != record["reference"]:
            told = [
                in_markdown(f"{key} {value!r}")
                for key, value in variant["differs"].items()
            ]
            lines.append(f"- {variant['name']}: {', '.join(told) or 'nothing'}")
    return "\n".join(lines)


def _paired_difference(record: dict[str, Any], variant: dict[str, Any]) -> str:
    """Mean over the seeds that both have, ± standard error."""
    if variant["name"] == record["reference"]:
        return ""
    quality = record["quality"]
    base = {
        run["seed"]: run["points"][-1][quality] for run in _reference(record)["runs"]
    }
    differences = [
        run["points"][-1][quality] - base[run["seed"]]
        for run in variant["runs"]
        if run["seed"] in base
    ]
    if len(differences) < 2:
        return f"{differences[0]:+.4f}" if differences else ""
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    return f"{np.mean(differences):+.4f} ± {error:.4f}"


def _mebibytes(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 2**20:.0f}"


def _spread(values: Iterable[float]) -> str:
    values = list(values)
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def _score_names(record: dict[str, Any]) -> list[str]:
    end = _first_end(record) or {}
    return [name for name in end if real_of(end, name) is not None]


def _first_end(record: dict[str, Any]) -> dict[str, Any] | None:
    for variant in record["variants"]:
        for run in variant["runs"]:
            return run["points"][-1]
    return None


def _reference(record: dict[str, Any]) -> dict[str, Any]:
    return next(v for v in record["variants"] if v["name"] == record["reference"])


def _last_diversity(folder: AnyPath) -> list[float | None]:
    """Feature diversity after each block where it was last written."""
    for metrics in reversed(read_metrics(folder)):
        names = sorted(n for n in metrics if n.startswith("feature_diversity/"))
        if names:
            return [metrics[name] for name in names]
    return []


def _table(head: Iterable[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table; columns after the first `left` are right-aligned."""
    head = list(head)
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    shown = [[in_markdown(cell) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (shown[0], rule, *shown[1:]))
