"""compare.json, compare.md and the plots of a comparison, as far as it has come."""

import json
from collections.abc import Sequence
from typing import Any

import jax

from dig_jax.comparison.markdown import PICTURES, format_comparison
from dig_jax.comparison.measure import Speed
from dig_jax.comparison.plan import Plan, Variant, evaluation_steps
from dig_jax.comparison.plots import plot_comparison
from dig_jax.comparison.points import (
    ends_of,
    read_divergence,
    read_points,
    run_folder,
    scores_of,
)
from dig_jax.comparison.verdict import find_verdicts, rank
from dig_jax.evaluation import Score, real_of
from dig_jax.evaluation.curves import TITLES
from dig_jax.evaluation.real_beside import explain_real
from dig_jax.evaluation.records import direction
from dig_jax.experiment import differing_keys
from dig_jax.files.paths import AnyPath, write_whole
from dig_jax.interfaces import LabelledImages
from dig_jax.reporting.goodput import read_goodput
from dig_jax.reporting.metric_writer import read_metrics

# Forward, and backward with respect to activations and to weights.
PASSES_A_STEP = 3


def write_report(
    plan: Plan,
    speeds: dict[str, Speed],
    workdir: AnyPath,
    learning_rates: Sequence[dict[str, Any]] = (),
    real: LabelledImages | None = None,
) -> None:
    """Write what is known so far into the workdir.

    Args:
        plan: What is compared.
        speeds: Of each variant.
        workdir: The comparison's.
        learning_rates: Those that were tried, as `Search.records` gives them.
        real: Test images, for a row of them below the drawn ones.
    """
    record = comparison_record(plan, speeds, workdir, learning_rates)
    plot_comparison(record, workdir, real)
    pictures = [name for name in PICTURES if (workdir / f"{name}.png").is_file()]
    text = format_comparison(record, pictures)
    for name, content in (
        ("compare.json", json.dumps(record, indent=1)),
        ("compare.md", text),
    ):
        write_whole(workdir / name, content)


def comparison_record(
    plan: Plan,
    speeds: dict[str, Speed],
    workdir: AnyPath,
    learning_rates: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Everything that was decided and measured, as one JSON object.

    `verdict` lists the fields of each `Verdict`, `learning_rates` those that were
    tried, `ranking` the variants that have been run, the best one first, `diverged`
    the seeds of a variant whose runs have no scores because they diverged.
    """
    options, reference = plan.options, plan.reference
    experiment = reference.experiment
    device = jax.devices()[0]
    record = {
        "budget": options.budget,
        "minutes": options.minutes,
        "reference": options.reference,
        "controls": list(options.controls),
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
        "learning_rates": list(learning_rates),
        "variants": [
            _variant_record(variant, speeds[variant.name], plan, workdir)
            for variant in plan.variants
        ],
    }
    record["scores"] = _describe_scores(record)
    record["ranking"] = [variant["name"] for variant in rank(record)]
    record["verdict"] = [verdict._asdict() for verdict in find_verdicts(record)]
    return record


def _variant_record(
    variant: Variant, speed: Speed, plan: Plan, workdir: AnyPath
) -> dict[str, Any]:
    experiment = variant.experiment
    runs, diverged = [], []
    for seed in plan.options.seeds:
        folder = run_folder(workdir, variant.name, seed)
        if read_divergence(folder) is not None:
            diverged.append(seed)
        elif str(experiment.training.num_steps) in (points := read_points(folder)):
            steps = [str(s) for s in evaluation_steps(experiment) if str(s) in points]
            runs.append(
                {
                    "seed": seed,
                    "points": [points[step] for step in steps],
                    "feature_diversity": _last_diversity(folder),
                    "training_seconds": _training_seconds(folder),
                }
            )
    all_macs = variant.macs + variant.attention_macs
    return {
        "name": variant.name,
        "backbone": experiment.backbone_options.name,
        "width": experiment.backbone_options.keywords.get("width"),
        "learning_rate": experiment.optimizer.learning_rate,
        "differs": differing_keys(plan.reference.experiment, experiment),
        "num_steps": experiment.training.num_steps,
        "batch_size": experiment.training.batch_size,
        "params": variant.params,
        "macs_per_image": variant.macs,
        "attention_macs_per_image": variant.attention_macs,
        "training_macs_per_image": PASSES_A_STEP * all_macs,
        **speed._asdict(),
        "runs": runs,
        "diverged": diverged,
    }


def _describe_scores(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the name of each score that real images have too: what it is, which way.

    `real` says what the real images' value is beside the drawn ones', where their
    numbers are known.
    """
    found = {}
    for end in ends_of(record):
        known = {score.name: score for score in scores_of(end)}
        for name in end:
            if name not in found and real_of(end, name) is not None:
                score = known.get(name, Score(name, 0.0, 0, of="pixels"))
                found[name] = _describe_score(score)
    return found


def _describe_score(score: Score) -> dict[str, Any]:
    meaning = TITLES.get(score.family, score.family)
    if score.num_images:
        meaning += f", {score.num_images:,} images"
    if score.domain:
        meaning += f", features of a classifier trained on {score.domain}"
    said = {"better": direction(score), "meaning": meaning}
    real = explain_real([score])
    return said | {"num_real": score.num_real, "real": real} if real else said


def _training_seconds(folder: AnyPath) -> float:
    """What the steps of a run took, over all of its starts."""
    kinds = ("productive", "lost", "data_wait")
    lines = read_goodput(folder)
    seconds = [line["seconds"].get(kind, 0.0) for line in lines for kind in kinds]
    return round(float(sum(seconds)), 3)


def _last_diversity(folder: AnyPath) -> list[float | None]:
    """Feature diversity after each block where it was last written."""
    for metrics in reversed(read_metrics(folder)):
        names = sorted(n for n in metrics if n.startswith("feature_diversity/"))
        if names:
            return [metrics[name] for name in names]
    return []
