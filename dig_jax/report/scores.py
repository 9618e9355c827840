"""Scores on a page: which way is better, and what real test images reach."""

from collections.abc import Mapping
from typing import Any

from dig_jax.evaluation.curves import TITLES
from dig_jax.evaluation.real_beside import explain_distance, explain_real, name_real
from dig_jax.evaluation.records import direction, read_records, read_scores
from dig_jax.files.paths import AnyPath
from dig_jax.metrics.scores import Score
from dig_jax.report.charts import Chart
from dig_jax.report.html import Markup, details, element, join, paragraph, table
from dig_jax.report.page import Missing, Page
from dig_jax.reporting.metric_writer import SCORE

ARROWS = {"up": "↑", "down": "↓", None: ""}
WORDS = {"up": "↑ higher", "down": "↓ lower", None: ""}
_LOG_FROM = 20
NOISE = (
    "± is the standard deviation over seeds, subsets or draws; smaller differences say "
    "nothing."
)


def readable_records(workdir: AnyPath) -> list[dict[str, Any]]:
    """Records of eval/scores.jsonl whose scores can be read, oldest first."""
    found = []
    for record in read_records(workdir):
        try:
            read_scores(record)
        except (KeyError, TypeError, AttributeError, ValueError):
            continue
        found.append(record)
    return found


def title_of(score: Score) -> str:
    """What people call a score."""
    return TITLES.get(score.family, score.family)


def name_cell(score: Score) -> Markup:
    """A score's title over its name."""
    name = element("small", score.name)
    return join([title_of(score), Markup("<br>"), name], "")


def values_of(score: Score) -> tuple[str, str]:
    """The drawn images' value and the real ones', with their deviations."""
    drawn = f"{score.value:.4f}" + (f" ± {score.std:.4f}" if score.std else "")
    if score.real is None:
        return drawn, ""
    real = f"{score.real:.4f}" + (f" ± {score.real_std:.4f}" if score.real_std else "")
    return drawn, real


def score_table(record: Mapping[str, Any]) -> Markup:
    """The scores of a record."""
    rows = []
    for score in read_scores(record):
        drawn, real = values_of(score)
        count = f"{score.num_real:,}" if score.num_real else ""
        rows.append(
            (
                name_cell(score),
                WORDS[direction(score)],
                drawn,
                f"{score.num_images:,}",
                real,
                count,
            )
        )
    head = ("score", "better", "drawn", "images", "real test images", "images")
    caption = f"Scores of {record.get('num_images', 'some')} drawn images"
    return table(head, rows, caption=caption, text_columns=2, whole=True)


def describe_record(record: Mapping[str, Any]) -> str:
    """Of what images a record is, in a line."""
    samples = record.get("samples")
    samples = samples if isinstance(samples, Mapping) else {}
    parts = [f"{record.get('num_images', 'Some')} images"]
    if "checkpoint_step" in samples:
        parts.append(f"of step {samples['checkpoint_step']}")
    if "solver" in samples:
        parts.append(f"by {samples['solver']} in {samples.get('num_steps')} steps")
    if "seed" in samples:
        seeds = samples["seed"]
        parts.append(f"seed{'s' if isinstance(seeds, list) else ''} {seeds}")
    return ", ".join(parts)


def scores_section(
    page: Page, records: list[dict[str, Any]], metrics: list[dict[str, Any]]
) -> Markup:
    """The newest scores, those along training, and earlier records."""
    charts = score_charts(records, metrics)
    if not records and not charts:
        raise Missing(
            "nothing has been scored (training.evaluate_every, or --mode=evaluate)"
        )
    parts: list[object] = []
    if records:
        newest = records[-1]
        parts.append(paragraph(f"Newest: {describe_record(newest)}."))
        parts.append(score_table(newest))
        said = f"{explain_real(read_scores(newest))} {NOISE}".lstrip()
        parts.append(paragraph(said, "note"))
        notes = newest.get("notes")
        notes = notes if isinstance(notes, list) else []
        parts += [paragraph(f"Note: {note}.", "note") for note in notes]
    if charts:
        parts += [element("h3", "Along training"), page.charts_of(charts)]
    if len(records) > 1:
        earlier = [
            join([element("h3", describe_record(record)), score_table(record)])
            for record in reversed(records[-9:-1])
        ]
        parts.append(details("Earlier scores", join(earlier)))
    return join(parts)


def score_charts(
    records: list[dict[str, Any]], metrics: list[dict[str, Any]]
) -> list[Chart]:
    """Each score of the evaluations during training, over steps."""
    known = {
        score.name: (score, record)
        for record in records
        if not record["samples"].get("parameters_digest")  # recorded by training
        for score in read_scores(record)
    }
    names = dict.fromkeys(n for line in metrics for n in line if n.startswith(SCORE))
    charts = []
    for full_name in names:
        name = full_name.removeprefix(SCORE)
        score, record = known.get(name, (None, {}))
        lines = [line for line in metrics if line.get(full_name) is not None]
        values = [line[full_name] for line in lines]
        if not values:
            continue
        title = name if score is None else f"{title_of(score)}  {_better(score)}"
        span = max(values) / min(values) if min(values) > 0 else 0
        chart = Chart(title, "Step", name, log=span > _LOG_FROM)
        chart.add(name, [line["step"] for line in lines], values, marked=True)
        if score is None:
            chart.note = f"No record of {name} is in eval/scores.jsonl: {_NO_LINE}."
        else:
            chart.note = _beside_real(chart, score, record, records)
        charts.append(chart)
    return charts


_NO_LINE = "there is no line of real test images"


def _beside_real(
    chart: Chart,
    score: Score,
    record: Mapping[str, Any],
    records: list[dict[str, Any]],
) -> str:
    """A score's note; its chart is given real images' line where that is known.

    Args:
        chart: Of the score.
        score: As training recorded it.
        record: Where.
        records: All of the run: an evaluation may know what training did not measure.
    """
    classifier = f", classifier of {score.domain}" if score.domain else ""
    of = f"{score.num_images:,} drawn images{classifier}."
    beside = [score] if score.real is not None else _same_in(score, record, records)
    if beside:
        real = beside[-1]
        chart.line(name_real(real.num_real), real.real or 0.0)
        return f"{of} {explain_distance(real)}".rstrip()
    counts = {one.num_real for one in read_scores(record) if one.num_real}
    if not counts:
        return f"{of} The data set had no test images: {_NO_LINE}."
    return (
        f"{of} {_NO_LINE.capitalize()}: the score compares at equal numbers of images, "
        f"and of {score.num_images:,} real ones it was not measured (there are "
        f"{max(counts):,}). --mode=evaluate scores as many drawn images as real ones."
    )


def _same_in(
    score: Score, record: Mapping[str, Any], records: list[dict[str, Any]]
) -> list[Score]:
    """The score in records of the same features that have it of real images too."""
    return [
        other
        for one in records
        if _features_of(one) == _features_of(record)
        for other in read_scores(one)
        if other.name == score.name and other.real is not None
    ]


def _features_of(record: Mapping[str, Any]) -> object:
    """What a record's scores of features compare by: network, weights, statistics."""
    features = record.get("features")
    if not isinstance(features, Mapping):
        return None
    return [features.get(key) for key in ("network", "weights", "resize", "statistics")]


def _better(score: Score) -> str:
    way = direction(score)
    return "" if way is None else f"({ARROWS[way]} {_WAYS[way]} is better)"


_WAYS = {"up": "higher", "down": "lower"}


def headline(records: list[dict[str, Any]], kind: str) -> Score | None:
    """The score that says most: the one that the best checkpoint is kept by.

    Args:
        records: Of the run.
        kind: `training.keep_best`; "" for none.
    """
    for record in reversed(records):
        scores = read_scores(record)
        for score in scores:
            if kind and score.kind == kind:
                return score
        for score in scores:
            if direction(score) is not None and score.real is not None:
                return score
    return None
