"""Scores as they are kept and shown: eval/scores.jsonl, and tables."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dig_jax.files.json_lines import append_line, read_lines
from dig_jax.files.paths import AnyPath, make_folder
from dig_jax.files.shown import LINE_END, printable
from dig_jax.metrics import GREATER_IS_BETTER, feature_families
from dig_jax.metrics.reference import UNKNOWN
from dig_jax.metrics.scores import Score, format_count

SCHEMA = 2

_OF_TEST = "_test"
_ENTRY = ("value", "num_images", "std", "real", "real_std", "num_real")
_DRAWN = {"checkpoint_step", "solver", "num_steps", "function_evaluations"} | {
    "parameters",
    "labels",
    "seed",
    "guidance",
}
"""What is said of images that dig_jax drew."""


def append_record(workdir: AnyPath, record: Mapping[str, Any]) -> AnyPath:
    """Add a record to eval/scores.jsonl, one JSON object a line with a checksum."""
    path = workdir / "eval" / "scores.jsonl"
    make_folder(path.parent)
    append_line(path, record)
    return path


def read_records(workdir: AnyPath) -> list[dict[str, Any]]:
    """The records of eval/scores.jsonl; lines of another schema are left out."""
    found = read_lines(workdir / "eval" / "scores.jsonl")
    return [record for record in found if record.get("schema") == SCHEMA]


def flat_scores(record: Mapping[str, Any]) -> dict[str, float]:
    """Value by name; real test images' has `_test` behind its name."""
    flat = {}
    for name, score in record["scores"].items():
        flat[name] = score["value"]
        if "real" in score:
            flat[f"{name}{_OF_TEST}"] = score["real"]
    return flat


def real_of(flat: Mapping[str, Any], name: str) -> float | None:
    """Of `flat_scores`: what real test images score, where that is known."""
    return flat.get(f"{name}{_OF_TEST}")


def read_scores(record: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores of a record: the one place where a score's name is read.

    A name that says less than all of this stays whole, as the family of a score of
    pixels: its name is then what it was.
    """
    return tuple(_read_score(name, entry) for name, entry in record["scores"].items())


def _read_score(name: str, entry: Mapping[str, Any]) -> Score:
    known = {key: entry[key] for key in _ENTRY if key in entry}
    count = format_count(entry["num_images"])
    for family in sorted(feature_families(), key=len, reverse=True):
        if name.startswith(family) and name.endswith(count):
            domain = name.removeprefix(family).removesuffix(count).strip("_")
            score = Score(family, domain=domain, **known)
            if score.name == name:
                return score
    return Score(name, of="pixels", **known)


def is_better(score: Score, value: float) -> bool:
    """Whether a score beats another one of the same name."""
    return score.value > value if direction(score) == "up" else score.value < value


def direction(score: Score) -> Literal["up", "down"] | None:
    """Which way a score is better; None where one may not choose by it."""
    metric = feature_families().get(score.family)
    if metric is not None:
        greater = metric.greater_is_better
    elif score.family in GREATER_IS_BETTER:
        greater = GREATER_IS_BETTER[score.family]
    else:
        return None
    return "up" if greater else "down"


def mean_record(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (over n - 1) of scores over seeds, as a record.

    Args:
        records: Of two seeds or more, the same but for the seed.
    """
    first = records[0]
    scores = {}
    for name, score in first["scores"].items():
        values = [record["scores"][name]["value"] for record in records]
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
        scores[name] = {**score, "value": mean, "std": std}
    seeds = [record["samples"]["seed"] for record in records]
    samples = {**first["samples"], "seed": seeds}
    seconds = sum(record["seconds"] for record in records)
    return {**first, "scores": scores, "samples": samples, "seconds": seconds}


def format_record(record: Mapping[str, Any]) -> str:
    """The scores of a record as a table, each beside what real test images reach."""
    rows = [("", "drawn", "real test images")]
    for name, score in record["scores"].items():
        real = ""
        if "real" in score:
            real = _format(score["real"], score.get("real_std"))
            if score["num_real"] != score["num_images"]:
                real += f"  ({score['num_real']:,} images)"
        rows.append((name, _format(score["value"], score.get("std")), real))
    width, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    table = [f"  {a:<{width}}  {b:>{middle}}  {c}".rstrip() for a, b, c in rows]
    return printable("\n".join([*_headline(record), *table]), keep=LINE_END)


def _headline(record: Mapping[str, Any]) -> list[str]:
    samples, real, features = (record[k] for k in ("samples", "real", "features"))
    if samples.keys() >= _DRAWN:
        seeds = samples["seed"]
        seeded = f"seed {seeds}" if isinstance(seeds, int) else f"seeds {seeds}"
        drawn = (
            f"of step {samples['checkpoint_step']} ({samples['solver']}, "
            f"{samples['num_steps']} steps, {samples['function_evaluations']} function "
            f"evaluations; {samples['parameters']}; labels {samples['labels']}; "
            f"{seeded})"
        )
        if samples["guidance"] != 1:
            drawn = drawn[:-1] + f"; guidance {samples['guidance']})"
    elif "samples_digest" in samples:
        drawn = f"from a file ({str(samples['samples_digest'])[:16]})"
    else:
        drawn = "of unknown origin"
    count = real["num_images"]
    against = (
        f"against {'unknown' if count is None else f'{count:,}'} images of "
        f"{real['dataset']}, split {real['split']}"
    )
    if "pixels_of" in real:
        against += f" (scores of pixels: of {real['pixels_of']})"
    if features is not None:
        against += (
            f"; features of {features['network']} {features['weights']}, statistics "
            f"{features['statistics'][:16]}"
        )
        if features.get("statistics_network") == UNKNOWN:
            against += " of an unknown network"
    return [f"{record['num_images']:,} images {drawn}", against] + [
        f"note: {note}" for note in record["notes"]
    ]


def _format(value: float, std: float | None) -> str:
    return f"{value:.4f}" + ("" if not std else f" ± {std:.4f}")
