"""The page of a comparison: its verdict first, then what that rests on."""

import shlex
from collections.abc import Mapping
from typing import Any

from dig_jax.comparison.points import ends_of, real_at_end, scores_at_end
from dig_jax.comparison.tables import spread
from dig_jax.comparison.verdict import (
    HELD_OUT_LOSS,
    TIE_RULE,
    First,
    count_seeds,
    direction_of,
    find_first,
    tell_alarms,
    tell_diverged,
)
from dig_jax.evaluation import real_of
from dig_jax.evaluation.curves import TITLES
from dig_jax.evaluation.real_beside import explain_real, name_real_of
from dig_jax.files.paths import AnyPath
from dig_jax.metrics.scores import Score
from dig_jax.report.comparison_charts import (
    NAMES,
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


def comparison_page(record: Record, workdir: AnyPath) -> Page:
    """The page of a comparison.

    Args:
        record: compare.json; `verdict`, `ranking`, `scores` and `learning_rates` may
            be missing, as in older ones.
        workdir: Where it lies, with its runs.
    """
    if "scores" not in record:
        scores = {record["quality"]: {"better": way(record)}}
        record = {**record, "scores": scores}
    variants = ranked(record)
    data = record["data"]
    title = f"Comparison on {data.get('title') or data['name']}"
    seeds = len(record["seeds"])
    judges = [NAMES[HELD_OUT_LOSS]] if is_ranked_by_loss(record) else []
    judges.append(record["quality"])
    done = sum(len(v["runs"]) for v in record["variants"])
    diverged = sum(len(v.get("diverged", ())) for v in record["variants"])
    planned = seeds * len(record["variants"])
    line = (
        f"{len(record['variants'])} variants, {seeds} seed{'s' if seeds > 1 else ''} "
        f"each, judged by {' and '.join(judges)}; equal for all: "
        f"{EQUAL.get(record['budget'], record['budget'])}."
    )
    page = Page(title, line)
    page.status = f"{done} of {planned} runs scored"
    if diverged:
        page.status += f", {diverged} diverged"
    page.state = "done" if done + diverged == planned else "open"
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
    failed = [paragraph(said, "warning") for said in tell_diverged(record)]
    if not found:
        none = paragraph(
            "No verdict yet: variants are judged by differences between runs of one "
            "seed, of two seeds or more. The tables say what one run of each came to."
        )
        return join([*failed, none])
    parts: list[object] = [*failed]
    for score in dict.fromkeys(one["score"] for one in found):
        mine = [one for one in found if one["score"] == score]
        arrow = ARROWS[direction_of(record, score)]
        parts.append(element("h3", f"By {NAMES.get(score, score)} {arrow}".rstrip()))
        first = find_first(record, score)
        if first is not None:
            parts.append(_first(first))
        for against in dict.fromkeys(one["against"] for one in mine):
            named = f"the reference, {against}"
            if against != record["reference"]:
                is_control = against in record.get("controls", ())
                named = against if is_control else f"the best, {against}"
            parts.append(_pairs(named, [v for v in mine if v["against"] == against]))
    parts.append(
        paragraph(
            "The difference is the mean over seeds of one variant's value less the "
            "other's with the same seed, ± its standard error. A variant is "
            f"{TIE_RULE}. The chance is how often a difference of so many standard "
            "errors, or more, would come where there is none (Student's t). "
            f"{tell_alarms(found)}.",
            "note",
        )
    )
    return join(parts)


_ORDER = {"ahead": 0, "tie": 1, "behind": 2}
_SAYS = {"ahead": "ahead", "tie": "a tie", "behind": "behind"}


def _first(first: First) -> Markup:
    """The head of a verdict: who is first."""
    told = [
        f"{said} {', '.join(names)}"
        for said, names in (
            ("ahead of", first.behind),
            ("a tie with", first.tied),
            ("not judged against", first.not_judged),
        )
        if names
    ]
    name = element("strong", f"{first.variant} is first")
    return paragraph(join([name, f" ({first.mean:.4f}): {'; '.join(told)}."], ""))


def _pairs(against: str, verdicts: list[Mapping[str, Any]]) -> Markup:
    """A row for each variant beside one other, those that are ahead of it first."""
    rows, attributes = [], []
    for one in sorted(verdicts, key=lambda one: _ORDER[one["says"]]):
        difference = f"{one['difference']:+.4f} ± {one['standard_error']:.4f}"
        said = element("span", _SAYS[one["says"]], class_="says")
        chance = _chance(one.get("chance"))
        rows.append((one["variant"], said, difference, str(one["num_seeds"]), chance))
        attributes.append(f'class="{one["says"]}"')
    shown = table(
        (f"against {against}", "", "difference", "seeds", "chance"),
        rows,
        caption=f"Each variant against {against}",
        text_columns=2,
        row_attributes=attributes,
        whole=True,
    )
    return element("div", shown, class_="verdict")


def _chance(chance: float | None) -> str:
    if chance is None:
        return ""
    return f"{chance:.1%}" if chance >= 0.001 else "under 0.1%"


def ranking_section(record: Record, variants: list[Record]) -> Markup:
    """Every variant's scores at the end of training, the best first."""
    if not variants:
        raise Missing("no run has been scored yet")
    quality = record["quality"]
    found = dict.fromkeys(
        name
        for end in ends_of(record)
        for name in end
        if real_of(end, name) is not None
    )
    names = [quality, *(name for name in found if name != quality)]
    says, by_loss = _says_of(record), is_ranked_by_loss(record)
    rows = []
    for place, variant in enumerate(variants, start=1):
        cells = [_breakable(spread(ends(variant, name).values())) for name in names]
        difference: object = "reference"
        if variant["name"] != record["reference"]:
            said = says.get((variant["name"], quality), "")
            difference = _above(_breakable(paired(record, variant)), said)
        name = _above(element("strong", variant["name"]), variant["backbone"])
        row: list[object] = [str(place), name, count_seeds(variant)]
        if by_loss:
            loss = _breakable(spread(losses(variant).values()))
            row.append(_above(loss, says.get((variant["name"], HELD_OUT_LOSS), "")))
        rows.append((*row, cells[0], difference, *cells[1:]))
    real = [real_at_end(record, name) for name in names]
    shown = ["" if value is None else f"{value:.4f}" for value in real]
    gap = [""] * (2 if by_loss else 1)
    scores = [score for score in scores_at_end(record) if score.name in names]
    rows.append(("", name_real_of(scores), *gap, shown[0], "", *shown[1:]))
    score = quality_score(record)
    heads = [
        _head(name, score if name == quality else None, way(record)) for name in names
    ]
    first = [f"{NAMES[HELD_OUT_LOSS]} {ARROWS['down']}"] if by_loss else []
    head = ("", "variant", "seeds", *first, heads[0], "difference", *heads[1:])
    attributes = ['class="first"'] + [""] * (len(rows) - 1)
    shown_table = table(
        head,
        rows,
        caption="Scores at the end of training, the best variant first",
        text_columns=2,
        row_attributes=attributes,
        whole=True,
    )
    said = (
        f"Ranked by {NAMES[HELD_OUT_LOSS] if by_loss else quality}, mean over seeds ± "
        "their standard deviation. Difference: paired by seed with "
        f"the reference, {record['reference']}, ± its standard error; beneath it what "
        f"the verdict says. {explain_real(scores)}"
    ).rstrip()
    return join([shown_table, paragraph(said, "note")])


def _says_of(record: Record) -> dict[tuple[str, str], str]:
    """The verdict on a variant beside the reference, by its name and the score."""
    return {
        (one["variant"], one["score"]): _SAYS[one["says"]]
        for one in record.get("verdict", ())
        if one["against"] == record["reference"]
    }


def _above(value: object, said: str) -> Markup:
    """A value, and a small word beneath it."""
    small = [Markup("<br>"), element("small", said)] if said else []
    return join([value, *small], "")


def _breakable(text: str) -> Markup:
    """A mean ± deviation, whose line may end before the ±."""
    mean, sign, deviation = text.partition(" ± ")
    end = element("span", f"± {deviation}", class_="unbroken") if sign else ""
    return join([element("span", mean, class_="unbroken"), end], " " if sign else "")


def _head(name: str, score: Score | None, better: str | None) -> Markup:
    title = name if score is None else TITLES.get(score.family, score.family)
    small = element("small", name) if title != name else ""
    arrow = f" {ARROWS[better]}" if score is not None else ""
    return join([title + arrow, Markup("<br>") if small else "", small], "")
