"""compare.md: the verdict first, then what it rests on, each column explained."""

from collections.abc import Sequence
from typing import Any

from dig_jax.comparison.sections import (
    cost_section,
    noise_section,
    progress_section,
    quality_section,
    rates_section,
)
from dig_jax.comparison.tables import (
    ARROWS,
    RATE,
    Bold,
    bullets,
    differing,
    listed,
    table,
)
from dig_jax.comparison.verdict import (
    HELD_OUT_LOSS,
    TIE_RULE,
    direction_of,
    find_first,
    judges,
    tell_alarms,
    tell_diverged,
)
from dig_jax.files.shown import in_markdown

PICTURES = {
    "samples": "The first images of each variant, from the same noise, and real ones",
    "quality": "The score over images, multiply-accumulates and seconds",
    "noise_levels": "Held-out loss by noise level, over the reference's",
    "diversity": "Feature diversity after each block",
}
"""What the plots show, NAME.png each."""
_SHOWN = {HELD_OUT_LOSS: "held-out loss"}


def format_comparison(record: dict[str, Any], pictures: Sequence[str] = ()) -> str:
    """The record as Markdown.

    Args:
        record: As `comparison_record` makes it.
        pictures: Names of PICTURES that lie beside the page.
    """
    data = record["data"]
    shown = {name: f"![{PICTURES[name]}]({name}.png)" for name in pictures}
    sections = [
        f"# Comparison on {data.get('title') or data['name']}, "
        f"{data['image_size']} pixels",
        "## Verdict",
        *_verdict(record),
        "## How it was made",
        _made(record),
        "## At the end of training",
        shown.get("samples", ""),
        *quality_section(record),
        *progress_section(record, shown.get("quality", "")),
        "## Held-out loss by noise level",
        shown.get("noise_levels", ""),
        *noise_section(record),
        *rates_section(record),
        "## Cost",
        *cost_section(record),
        "## What differs from the reference",
        _differences(record),
    ]
    if "diversity" in shown:
        sections += ["## Feature diversity", shown["diversity"]]
    return "\n\n".join(filter(None, sections)) + "\n"


def _verdict(record: dict[str, Any]) -> list[str]:
    """A sentence for each judge, every pair that was judged, and the rule."""
    found = record["verdict"]
    failed = [f"- {in_markdown(said)}" for said in tell_diverged(record)]
    if not found:
        return [
            "\n".join(failed),
            "No verdict yet: two variants are judged by the differences between runs "
            "of one seed, for two seeds or more. The tables below say what one run of "
            "each came to.",
        ]
    told = [_sentence(record, score) for score in judges(record)]
    cells = {(v["variant"], v["against"], v["score"]): v for v in found}
    pairs = dict.fromkeys((v["variant"], v["against"]) for v in found)
    scores = dict.fromkeys(v["score"] for v in found)
    head = ["variant", "against"]
    for score in scores:
        arrow = ARROWS[direction_of(record, score)]
        head += [f"difference in {_SHOWN.get(score, score)}{arrow}", "says", "chance"]
    rows = []
    for pair in pairs:
        row = list(pair)
        for score in scores:
            row += _pair_cells(cells.get((*pair, score)))
        rows.append(row)
    return [
        "\n".join(filter(None, [*told, *failed])),
        table(head, rows, left=2),
        bullets(
            {
                "difference": "the variant's value less the other's with the same "
                "seed, mean over the seeds ± its standard error.",
                "says": f"{TIE_RULE}. {tell_alarms(found)}.",
                "chance": "how often a difference of so many standard errors, or more, "
                "would come where there is none (Student's t). Among many pairs, some "
                "small ones come by chance.",
            }
        ),
    ]


def _sentence(record: dict[str, Any], score: str) -> str:
    """Who is first by a judge, and whom it is ahead of."""
    found = find_first(record, score)
    if found is None:
        return ""
    parts = [
        f"ahead of {listed(found.behind)}" if found.behind else "",
        f"a tie with {listed(found.tied)}" if found.tied else "",
        f"not judged against {listed(found.not_judged)}" if found.not_judged else "",
    ]
    name = (
        f"{_SHOWN.get(score, in_markdown(score))}{ARROWS[direction_of(record, score)]}"
    )
    return (
        f"- By {name} **{in_markdown(found.variant)}** is first ({found.mean:.4f}), "
        f"{'; '.join(filter(None, parts))}."
    )


def _pair_cells(verdict: dict[str, Any] | None) -> list[str]:
    if verdict is None:
        return ["", "", ""]
    says = verdict["says"]
    return [
        f"{verdict['difference']:+.4f} ± {verdict['standard_error']:.4f}",
        Bold(says) if says == "ahead" else says,
        f"{verdict['chance']:.1%}",
    ]


def _made(record: dict[str, Any]) -> str:
    sample, minutes = record["sample"], record["minutes"]
    equal = {
        "macs": "multiply-accumulates an image (by the choice of the width)",
        "parameters": "parameters (by the choice of the width)",
        "seconds": "seconds of training (by the number of steps)",
        "none": "the number of steps (widths are as given: see Cost)",
    }[record["budget"]]
    if minutes:
        by_width = f"{equal} and " if record["budget"] in ("macs", "parameters") else ""
        equal = f"{by_width}{minutes:g} minutes of training (by the number of steps)"
    alike = ", which was looked for alike" if record["learning_rates"] else ""
    but = [
        key + (alike if key == RATE else "")
        for key in differing(record)
        if not key.startswith("backbone.")
    ]
    but_for = f", but for {', '.join(map(in_markdown, but))}" if but else ""
    return (
        f"Equal for all: {equal}; data, order of batches, times, noise, optimizer "
        f"and averaging of parameters{but_for}. "
        f"Reference: {in_markdown(record['reference'])}. "
        f"Seeds: {', '.join(map(str, record['seeds']))}; a variant's row says how many "
        f"have been run. Batches of {record['batch_size']}. Samples: "
        f"{sample['num_images']} images by {sample['solver']} in "
        f"{sample['num_steps']} steps. Measured on {record['device']}, jax "
        f"{record['jax']}."
    )


def _differences(record: dict[str, Any]) -> str:
    lines = []
    for variant in record["variants"]:
        if variant["name"] != record["reference"]:
            told = [
                in_markdown(f"{key} {value!r}")
                for key, value in variant["differs"].items()
            ]
            name = in_markdown(variant["name"])
            lines.append(f"- {name}: {', '.join(told) or 'nothing'}")
    return "\n".join(lines)
