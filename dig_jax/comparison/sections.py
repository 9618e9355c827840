"""What a comparison's verdict rests on: scores, losses, learning rates and costs."""

from typing import Any

import numpy as np

from dig_jax.comparison.noise_levels import has_reference_sde, noise_levels
from dig_jax.comparison.points import real_at_end, scores_at_end
from dig_jax.comparison.tables import (
    ARROWS,
    Bold,
    bullets,
    listed,
    score_column,
    table,
)
from dig_jax.comparison.verdict import (
    by_seed,
    count_seeds,
    direction_of,
    judge_pairs,
    rank,
)
from dig_jax.evaluation.real_beside import explain_real, name_real_of
from dig_jax.files.shown import in_markdown

_SPACES = ("eps", "x0")
_LOSS = (
    "squared error of the {} on test images, at noise levels spread evenly over t, "
    "with the averaged parameters"
)


def quality_section(record: dict[str, Any]) -> list[str]:
    """Every score at the end, ranked, with real test images in the last row."""
    ranked, quality = rank(record), record["quality"]
    names = sorted(record["scores"], key=lambda name: name != quality)
    rows_of = [[run["points"][-1] for run in variant["runs"]] for variant in ranked]
    columns, head = [], []
    for space in _SPACES:
        head.append(f"loss ({space}) ↓")
        means = [
            [float(np.mean(end["noise_levels"][space])) for end in ends]
            if has_reference_sde(variant)
            else []
            for variant, ends in zip(ranked, rows_of, strict=True)
        ]
        columns.append(score_column(means, "down"))
    for name in names:
        better = record["scores"][name]["better"]
        head.append(f"{name}{ARROWS[better]}")
        columns.append(
            score_column(
                [[end[name] for end in ends if name in end] for ends in rows_of], better
            )
        )
    rows = [
        [str(place), variant["name"], count_seeds(variant), *cells]
        for place, (variant, *cells) in enumerate(
            zip(ranked, *columns, strict=True), start=1
        )
    ]
    failed = [v for v in record["variants"] if v.get("diverged") and not v["runs"]]
    for variant in failed:
        gap = [""] * (len(_SPACES) + len(names))
        rows.append(["", variant["name"], count_seeds(variant), *gap])
    if ranked:
        real = [f"{real_at_end(record, name):.4f}" for name in names]
        rows.append(
            ["", name_real_of(scores_at_end(record)), "", *[""] * len(_SPACES), *real]
        )
    alike = all(map(has_reference_sde, ranked))
    by = "held-out loss" if alike else in_markdown(quality)
    explained = {
        "rank": f"by {by}, mean over seeds; the verdict says what of it is sure.",
        "seeds": "runs that have been evaluated, and those that diverged; other cells "
        "are means over the former, ± the standard deviation between them.",
        "loss (eps)": f"{_LOSS.format('noise')}: the held-out loss. Left out under "
        "another SDE, where a time is another noise level.",
        "loss (x0)": f"{_LOSS.format('image')}.",
    }
    explained |= {name: f"{record['scores'][name]['meaning']}." for name in names}
    explained["real test images"] = (
        "the same scores of the data set's test images. "
        f"{in_markdown(explain_real(scores_at_end(record)))}"
    ).rstrip()
    return [
        table(("rank", "variant", "seeds", *head), rows, left=2),
        "Arrows say which way is better; the best of a column is in bold.",
        bullets(explained),
    ]


def progress_section(record: dict[str, Any], picture: str) -> list[str]:
    """The score along training: its picture, and a table if there is more than an end.

    Args:
        record: As `comparison_record` makes it.
        picture: In Markdown; "" without one.
    """
    ranked, quality = rank(record), record["quality"]
    lengths = [len(run["points"]) for variant in ranked for run in variant["runs"]]
    num_points = max(lengths, default=0)
    if num_points < 2:
        title = f"## {in_markdown(quality)} and what it took"
        return [title, picture] if picture else []
    columns = [
        score_column(
            [
                [
                    run["points"][point][quality]
                    for run in variant["runs"]
                    if len(run["points"]) == num_points
                ]
                for variant in ranked
            ],
            direction_of(record, quality),
        )
        for point in range(num_points)
    ]
    names = [variant["name"] for variant in ranked]
    head = [f"{i + 1}/{num_points} of the steps" for i in range(num_points)]
    return [
        f"## {in_markdown(quality)} along training",
        picture,
        table(("variant", *head), list(zip(names, *columns, strict=True))),
    ]


def noise_section(record: dict[str, Any]) -> list[str]:
    """Losses over the reference's; bold where a variant is ahead of it by the rule."""
    reference, rows = _reference(record), []
    for variant in rank(record) if reference["runs"] else ():
        if not has_reference_sde(variant):
            continue
        levels = noise_levels(variant, "eps")
        if variant is reference:
            cells = [f"{value:.4f}" for value in levels]
            rows.append([f"{variant['name']} itself", *cells])
            continue
        ratios = levels / noise_levels(reference, "eps")
        cells = [f"{value:.3f}" for value in ratios]
        for level in range(len(cells)):
            said = judge_pairs(
                *(
                    by_seed(v, lambda end, at=level: end["noise_levels"]["eps"][at])
                    for v in (variant, reference)
                )
            )
            if said is not None and said[3] == "ahead":
                cells[level] = Bold(cells[level])
        rows.append([variant["name"], *cells])
    head = [f"t {i / 10:.1f} to {(i + 1) / 10:.1f}" for i in range(10)]
    return [
        "Squared error of the noise (eps) in ten bins of t, from data to noise, over "
        "the reference's: below 1 is better. In bold: ahead of the reference by more "
        "than two standard errors, with two seeds or more.",
        table(("variant", *head), rows),
    ]


def rates_section(record: dict[str, Any]) -> list[str]:
    """The learning rates that were tried, if any, the chosen ones in bold."""
    tried = record["learning_rates"]
    if not tried:
        return []
    rates = sorted({row["learning_rate"] for row in tried})
    found = {(row["variant"], row["learning_rate"]): row for row in tried}
    rows = []
    for name in dict.fromkeys(row["variant"] for row in tried):
        cells = []
        for rate in rates:
            row = found.get((name, rate))
            loss = None if row is None else row["held_out_loss"]
            cell = "diverged" if loss is None else f"{loss:.4f}"
            cell = "" if row is None else cell
            cells.append(Bold(cell) if row is not None and row["chosen"] else cell)
        rows.append([name, *cells])
    steps = sorted({row["num_steps"] for row in tried})
    shown = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    said = (
        f"Held-out loss (eps) ↓ after {shown} steps with each rate, on seed "
        f"{tried[0]['seed']}, which is used for nothing else. Each variant is trained "
        "with its best one, in bold."
    )
    if at_end := rates_at_end(tried):
        said += f" For {listed(at_end)} {AT_END}"
    head = ("variant", *(f"{rate:g}" for rate in rates))
    return ["## Learning rates", said, table(head, rows)]


AT_END = "the best rate is at the end of the range: a better one may lie beyond."


def rates_at_end(tried: list[dict[str, Any]]) -> list[str]:
    """The variants whose best learning rate is the least or the greatest tried."""
    rates = {row["learning_rate"] for row in tried}
    ends = (min(rates), max(rates)) if rates else ()
    return [
        row["variant"]
        for row in tried
        if row.get("chosen") and row["learning_rate"] in ends
    ]


def cost_section(record: dict[str, Any]) -> list[str]:
    """What each variant is, and what it takes; those that were not run come last."""
    reference, rows = _reference(record), []
    ranked = rank(record)
    names = {variant["name"] for variant in ranked}
    left = [v for v in record["variants"] if v["name"] not in names]
    for variant in [*ranked, *left]:
        slow, fast = variant["images_per_second_range"]
        rate = variant["images_per_second"] / reference["images_per_second"]
        attention = variant["attention_macs_per_image"]
        all_macs = variant["macs_per_image"] + attention
        seconds = [run.get("training_seconds", 0.0) for run in variant["runs"]]
        rows.append(
            [
                variant["name"],
                variant["backbone"],
                str(variant["width"]),
                f"{variant['params'] / 1e6:.3f}",
                f"{all_macs / 1e6:.2f}",
                f"{attention / all_macs:.0%}" if attention else "",
                f"{variant['num_steps']:,}",
                f"{variant['learning_rate']:g}",
                f"{variant['images_per_second']:.0f} ({slow:.0f} to {fast:.0f})",
                f"{rate:.2f}",
                f"{np.mean(seconds) / 60:.1f}" if any(seconds) else "",
                _mebibytes(variant["peak_bytes"]),
            ]
        )
    explained = {
        "parameters (M)": "millions of them.",
        "MACs an image (M)": "millions of multiply-accumulates of matrix products and "
        "convolutions for one image, forward; a training step is counted as 3 of them.",
        "of them attention": "those of attention's own products.",
        "images/s": "of the training step, the variants in turn: median, and slowest "
        "to fastest round.",
        "of the reference's": "images/s over those of the reference.",
        "minutes": "that the steps of a run took, mean over seeds.",
        "memory (MiB)": "of the training step, by the compiler's account.",
    }
    head = (
        "variant",
        "backbone",
        "width",
        "parameters (M)",
        "MACs an image (M)",
        "of them attention",
        "steps",
        "learning rate",
        "images/s",
        "of the reference's",
        "minutes",
        "memory (MiB)",
    )
    return [table(head, rows, left=2), bullets(explained)]


def _reference(record: dict[str, Any]) -> dict[str, Any]:
    return next(v for v in record["variants"] if v["name"] == record["reference"])


def _mebibytes(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 2**20:.0f}"
