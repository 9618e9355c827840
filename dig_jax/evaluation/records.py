"""Scores as they are kept and shown: eval/scores.jsonl, and tables."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dig_jax.files.paths import AnyPath, append_line, make_folder, read_text
from dig_jax.metrics.reference import UNKNOWN

SCHEMA = 2

HIGHER_IS_BETTER = ("label_accuracy", "precision", "recall", "inception_score")


class Score(NamedTuple):
    """One score.

    Attributes:
        value: Of drawn images.
        num_images: How many it is of.
        std: Its standard deviation over subsets, splits or draws, where it has some.
        real: The same score of real test images.
        real_std: Its standard deviation over draws of them.
        num_real: How many it is of.
    """

    value: float
    num_images: int
    std: float | None = None
    real: float | None = None
    real_std: float | None = None
    num_real: int | None = None

    def to_json(self) -> dict[str, float]:
        """What is known of it."""
        return {k: v for k, v in self._asdict().items() if v is not None}


Scores = dict[str, Score]


def append_record(workdir: AnyPath, record: Mapping[str, Any]) -> AnyPath:
    """Add a record to eval/scores.jsonl, one JSON object a line."""
    path = workdir / "eval" / "scores.jsonl"
    make_folder(path.parent)
    append_line(path, json.dumps(record))
    return path


def read_records(workdir: AnyPath) -> list[dict[str, Any]]:
    """The records of eval/scores.jsonl; lines of another schema are left out."""
    path = workdir / "eval" / "scores.jsonl"
    if not path.is_file():
        return []
    records = []
    for line in read_text(path).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # half a line, of a process that was killed
        if isinstance(record, dict) and record.get("schema") == SCHEMA:
            records.append(record)
    return records


def flat_scores(record: Mapping[str, Any]) -> dict[str, float]:
    """Value by name; real test images' has `_test` behind its name."""
    flat = {}
    for name, score in record["scores"].items():
        flat[name] = score["value"]
        if "real" in score:
            flat[f"{name}_test"] = score["real"]
    return flat


def score_family(name: str) -> str:
    """A score's name without its number of images: fid of fid50k."""
    return re.sub(r"_?\d+k?$", "", name)


def is_better(family: str, value: float, other: float) -> bool:
    """Whether a score beats another one of the same name."""
    higher = family.startswith(HIGHER_IS_BETTER)
    return value > other if higher else value < other


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
    return "\n".join([*_headline(record), *table])


def _headline(record: Mapping[str, Any]) -> list[str]:
    samples, real, features = (record[k] for k in ("samples", "real", "features"))
    if "solver" in samples:
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
        drawn = f"from a file ({samples['samples_digest'][:16]})"
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
