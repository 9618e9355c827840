"""The page of a comparison: its verdict first, then what that rests on."""

import shlex
from collections.abc import Mapping
from typing import Any

from dig_jax.evaluation import real_of
from dig_jax.evaluation.curves import TITLES
from dig_jax.files.paths import AnyPath
from dig_jax.metrics.scores import Score
from dig_jax.report.comparison_charts import (
    differences_section,
    diversity_section,
    noise_section,
    quality_section,
)
from dig_jax.report.comparison_pictures import pictures_section
from dig_jax.report.comparison_record import (
    Record,
    ends,
    is_ranked_by_loss,
    losses,
    paired,
    quality_score,
    ranked,
    spread,
    way,
)
from dig_jax.report.comparison_tables import (
    EQUAL,
    costs_section,
    differs_section,
    equal_section,
    rates_section,
)
from dig_jax.report.html import Markup, command, element, join, paragraph, table
from dig_jax.report.page import Missing, Page
from dig_jax.report.provenance import RUN
from dig_jax.report.scores import ARROWS

_LOSS = "held_out_loss"
_NAMES = {_LOSS: "held-out loss"}


def comparison_page(record: Record, workdir: AnyPath) -> Page:
    """The page of a comparison.

    Args:
        record: compare.json; `verdict`, `ranking` and `learning_rates` may be missing,
            as in older ones.
        workdir: Where it lies, with its runs.
    """
    variants = ranked(record)
    data = record["data"]
    title = f"Comparison on {data.get('title') or data['name']}"
    seeds = len(record["seeds"])
    judges = [_NAMES[_LOSS]] if is_ranked_by_loss(record) else []
    judges.append(record["quality"])
    done = sum(len(v["runs"]) for v in record["variants"])
    planned = seeds * len(record["variants"])
    line = (
        f"{len(record['variants'])} variants, {seeds} seed{'s' if seeds > 1 else ''} "
        f"each, judged by {' and '.join(judges)}; equal for all: "
        f"{EQUAL.get(record['budget'], record['budget'])}."
    )
    page = Page(title, line)
    page.status = f"{done} of {planned} runs scored"
    page.state = "done" if done == planned else "open"
    page.add("verdict", "Verdict", lambda: verdict_section(record, variants))
    page.add("ranking", "Ranking", lambda: ranking_section(record, variants))
    page.add("quality", "Quality", lambda: quality_section(page, record, variants))
    page.add("differences", "By seed", lambda: differences_section(page, record))
    page.add("pictures", "Pictures", lambda: pictures_section(variants, workdir))
    page.add("noise", "By noise level", lambda: noise_section(page, record, variants))
    page.add("diversity", "Diversity", lambda: diversity_section(page, variants))
    if record.get("learning_rates"):
        page.add("rates", "Learning rates", lambda: rates_section(record))
    page.add("costs", "Costs", lambda: costs_section(record, variants))
    page.add("equal", "What was equal", lambda: equal_section(record))
    page.add("differs", "What differs", lambda: differs_section(record))
    place = shlex.quote(f"--workdir={workdir}")
    page.add(
        "commands",
        "Commands",
        lambda: command("Write this page again.", f"{RUN} --mode=report {place}"),
    )
    return page


def verdict_section(record: Record, variants: list[Record]) -> Markup:
    """What the record's verdict says, in sentences."""
    if "verdict" not in record:
        return paragraph(
            "This comparison was made by a version that judged nothing: see the "
            "ranking. The same command, started again, writes a verdict."
        )
    found = record["verdict"]
    if not found:
        return paragraph(
            "No verdict yet: variants are judged by differences between runs of one "
            "seed, of two seeds or more. The tables say what one run of each came to."
        )
    parts: list[object] = []
    for score in dict.fromkeys(one["score"] for one in found):
        mine = [one for one in found if one["score"] == score]
        parts.append(element("h3", f"By {_NAMES.get(score, score)}"))
        items = [
            element("li", _sentence(one), class_=one["says"])
            for one in sorted(mine, key=lambda one: _ORDER[one["says"]])
            if one["against"] == record["reference"]
        ]
        parts.append(element("ul", join(items), class_="verdict"))
        controls = record.get("controls", ())
        for other in dict.fromkeys(one["against"] for one in mine):
            if other == record["reference"]:
                continue
            said = [
                f"{one['variant']} is {_SAYS[one['says']]}"
                for one in mine
                if one["against"] == other
            ]
            named = other if other in controls else f"the best, {other}"
            parts.append(paragraph(f"Against {named}: {'; '.join(said)}."))
    parts.append(
        paragraph(
            "A difference is the mean over seeds of one variant's value less the "
            "other's with the same seed, ± its standard error. A tie: these runs do "
            "not tell the two apart.",
            "note",
        )
    )
    return join(parts)


_ORDER = {"ahead": 0, "tie": 1, "behind": 2}
_SAYS = {"ahead": "ahead", "tie": "a tie", "behind": "behind"}


def _sentence(one: Mapping[str, Any]) -> Markup:
    says = {"ahead": "ahead of", "tie": "a tie with", "behind": "behind"}[one["says"]]
    error = one["standard_error"]
    chance = one.get("chance")
    tail = "" if chance is None else f" (by chance alone in {chance:.1%} of cases)"
    return join(
        [
            element("strong", one["variant"]),
            " is ",
            element("span", says, class_="says"),
            f" {one['against']}: {one['difference']:+.4f} ± {error:.4f} over "
            f"{one['num_seeds']} seeds{tail}",
        ],
        "",
    )


def ranking_section(record: Record, variants: list[Record]) -> Markup:
    """Every variant's scores at the end of training, the best first."""
    if not variants:
        raise Missing("no run has been scored yet")
    end = variants[0]["runs"][0]["points"][-1]
    names = [name for name in end if real_of(end, name) is not None]
    quality = record["quality"]
    names = [quality, *(name for name in names if name != quality)]
    says, by_loss = _says_of(record), is_ranked_by_loss(record)
    rows = []
    for place, variant in enumerate(variants, start=1):
        cells = [spread(list(ends(variant, name).values())) for name in names]
        difference: object = "reference"
        if variant["name"] != record["reference"]:
            said = says.get((variant["name"], quality), "")
            difference = _above(paired(record, variant), said)
        name = join([element("strong", variant["name"]), f" {variant['backbone']}"])
        row: list[object] = [str(place), name, str(len(variant["runs"]))]
        if by_loss:
            loss = spread(list(losses(variant).values()))
            row.append(_above(loss, says.get((variant["name"], _LOSS), "")))
        rows.append((*row, cells[0], difference, *cells[1:]))
    real = [real_of(end, name) for name in names]
    shown = ["" if value is None else f"{value:.4f}" for value in real]
    gap = [""] * (2 if by_loss else 1)
    rows.append(("", "real test images", *gap, shown[0], "", *shown[1:]))
    score = quality_score(record)
    heads = [
        _head(name, score if name == quality else None, way(record)) for name in names
    ]
    first = [f"{_NAMES[_LOSS]} {ARROWS['down']}"] if by_loss else []
    head = ("", "variant", "seeds", *first, heads[0], "difference", *heads[1:])
    attributes = ['class="first"'] + [""] * (len(rows) - 1)
    shown_table = table(
        head,
        rows,
        caption="Scores at the end of training, the best variant first",
        text_columns=2,
        row_attributes=attributes,
    )
    said = (
        f"Ranked by {_NAMES[_LOSS] if by_loss else quality}, mean over seeds ± their "
        "standard deviation. Difference: paired by seed with "
        f"the reference, {record['reference']}, ± its standard error; beneath it what "
        "the verdict says."
    )
    return join([shown_table, paragraph(said, "note")])


def _says_of(record: Record) -> dict[tuple[str, str], str]:
    """The verdict on a variant beside the reference, by its name and the score."""
    return {
        (one["variant"], one["score"]): _SAYS[one["says"]]
        for one in record.get("verdict", ())
        if one["against"] == record["reference"]
    }


def _above(value: str, said: str) -> Markup:
    """A number, and a small word beneath it."""
    return join(
        [value, Markup("<br>"), element("small", said)] if said else [value], ""
    )


def _head(name: str, score: Score | None, better: str | None) -> Markup:
    title = name if score is None else TITLES.get(score.family, score.family)
    small = element("small", name) if title != name else ""
    arrow = f" {ARROWS[better]}" if score is not None else ""
    return join([title + arrow, Markup("<br>") if small else "", small], "")
