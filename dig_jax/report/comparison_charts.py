"""The charts of a comparison: quality over each budget, seeds, noise, diversity."""

import numpy as np

from dig_jax.comparison.noise_levels import has_reference_sde, noise_levels
from dig_jax.comparison.points import scores_at_end
from dig_jax.comparison.verdict import HELD_OUT_LOSS, direction_of, value_of
from dig_jax.evaluation import real_of
from dig_jax.evaluation.real_beside import explain_distance, name_real_of
from dig_jax.report.charts import Chart
from dig_jax.report.comparison_record import (
    Record,
    differences_of,
    has_course,
    having,
    judges_of,
    ranked,
)
from dig_jax.report.html import Markup, element, join, paragraph
from dig_jax.report.page import Missing, Page
from dig_jax.report.scores import ARROWS

NAMES = {HELD_OUT_LOSS: "held-out loss"}
"""What people call a judge; others go by their names."""


def quality_section(page: Page, record: Record, variants: list[Record]) -> Markup:
    """Each judge's value over images, multiply-accumulates and seconds."""
    if not variants:
        raise Missing("no run has been scored yet")
    parts = [
        paragraph("Mean over seeds; the band reaches from the least to the greatest.")
    ]
    colors = {variant["name"]: color for color, variant in enumerate(variants)}
    for score in judges_of(record, variants):
        if not has_course(variants, score):
            why = "it was measured at the end alone: see By seed"
            page.left_out.append((f"{_named(score)} along training", why))
            continue
        charts = _charts_of(record, having(variants, score), score, colors)
        parts.append(
            element("div", join(map(page.chart, charts)), class_="charts three")
        )
    known = [s for s in scores_at_end(record) if s.name == record["quality"]]
    parts += [paragraph(said, "note") for s in known if (said := explain_distance(s))]
    return join(parts)


def _named(score: str) -> str:
    return NAMES[score].capitalize() if score in NAMES else score


def _charts_of(
    record: Record, variants: list[Record], score: str, colors: dict[str, int]
) -> list[Chart]:
    """A judge's value over each budget, with a line of real images where it has one."""
    value, name = value_of(score), _named(score)
    arrow = ARROWS[direction_of(record, score)]
    charts = [
        Chart(f"{name} {arrow} over {title}", axis, name, log=True)
        for title, axis in (
            ("images", "Images seen"),
            ("operations", "MACs spent (tera)"),
            ("time", "Seconds of training"),
        )
    ]
    for variant in variants:
        length = max(len(run["points"]) for run in variant["runs"])
        runs = [run for run in variant["runs"] if len(run["points"]) == length]
        values = np.array([[value(point) for point in run["points"]] for run in runs])
        steps = [point["checkpoint_step"] for point in runs[0]["points"]]
        images = np.array(steps) * variant["batch_size"]
        budgets = (
            images,
            images * variant["training_macs_per_image"] / 1e12,
            images / variant["images_per_second"],
        )
        several = len(runs) > 1
        for chart, budget in zip(charts, budgets, strict=True):
            chart.add(
                variant["name"],
                budget.tolist(),
                values.mean(axis=0).tolist(),
                low=values.min(axis=0).tolist() if several else (),
                high=values.max(axis=0).tolist() if several else (),
                marked=True,
                color=colors[variant["name"]],
            )
    real = real_of(variants[0]["runs"][0]["points"][-1], score)
    known = [one for one in scores_at_end(record) if one.name == score]
    for chart in charts:
        if real is not None:
            chart.line(name_real_of(known), real)
    return charts


def differences_section(page: Page, record: Record) -> Markup:
    """Each seed's difference from the reference, by each judge."""
    variants = ranked(record)
    charts = [
        chart
        for score in judges_of(record, variants)
        if (chart := _differences_chart(record, having(variants, score), score))
    ]
    if not charts:
        raise Missing("no variant shares a seed with the reference yet")
    return join(map(page.chart, charts))


def _differences_chart(
    record: Record, variants: list[Record], score: str
) -> Chart | None:
    """A point for each seed of each variant; None where none is the reference's."""
    reference, name = record["reference"], _named(score)
    others = [v for v in variants if v["name"] != reference]
    found = {v["name"]: differences_of(record, v, score) for v in others}
    names = [name for name, of_seeds in found.items() if of_seeds]
    if not names:
        return None
    way = direction_of(record, score)
    better = {"up": "above", "down": "below", None: "on one side of"}[way]
    chart = Chart(
        f"{name}: difference from {reference} with the same seed",
        "Variant",
        "Difference",
        f"A point for each seed. Points {better} 0 are better than {reference}; a "
        "variant whose points lie on both sides is hardly told apart from it.",
        categories=names,
    )
    for seed in record["seeds"]:
        mine = [name for name in names if seed in found[name]]
        if mine:
            values = [found[name][seed] for name in mine]
            chart.add(f"seed {seed}", mine, values, points_only=True)
    chart.line(reference, 0.0)
    return chart


def noise_section(page: Page, record: Record, variants: list[Record]) -> Markup:
    """Held-out loss by noise level, over the reference's."""
    reference = next(v for v in record["variants"] if v["name"] == record["reference"])
    if not reference["runs"]:
        raise Missing("the reference has not been scored yet")
    base = noise_levels(reference, "eps")
    chart = Chart(
        f"Held-out loss (eps) over that of {record['reference']}",
        "t (0 is the image, 1 is noise)",
        "Ratio",
        "Below 1 the variant's error is the smaller at this noise level.",
    )
    for color, variant in enumerate(variants):
        if has_reference_sde(variant):
            levels = noise_levels(variant, "eps")
            centres = [round((i + 0.5) / len(levels), 3) for i in range(len(levels))]
            chart.add(variant["name"], centres, (levels / base).tolist(), color=color)
    return page.chart(chart)


def diversity_section(page: Page, variants: list[Record]) -> Markup:
    """Feature diversity after each block at the end of training."""
    chart = Chart(
        "Feature diversity at the end of training",
        "Block",
        "‖H - 1 h*ᵀ‖",
        "How far the nodes are from all being alike (DiG, Fig. 4). Near 0 they have "
        "become one (oversmoothing). Widths and scales of variants differ: compare "
        "the courses more than the heights.",
        zero=True,
    )
    for color, variant in enumerate(variants):
        curves = [run["feature_diversity"] for run in variant["runs"]]
        curves = [found for found in curves if found]
        if curves:
            mean = np.mean(np.array(curves, np.float64), axis=0)
            name = variant["name"]
            chart.add(name, list(range(len(mean))), mean.tolist(), color=color)
    if not chart.series:
        raise Missing("none was measured (training.diversity_every)")
    return page.chart(chart)
