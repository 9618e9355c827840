"""What came of one run of a comparison: points.json by step, or diverged.json."""

from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from dig_jax.errors import InputError
from dig_jax.evaluation import Score, read_scores, real_of
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath

POINTS = "points.json"
DIVERGED = "diverged.json"


def run_folder(workdir: AnyPath, variant: str, seed: int) -> AnyPath:
    """Workdir of one run of a comparison."""
    return workdir / "runs" / f"{variant}-{seed}"


def read_points(folder: AnyPath) -> dict[str, dict[str, Any]]:
    """The points of a run by step, as text; {} without any.

    A file that is not what was written is told and passed over: its run is scored anew.
    """
    path = folder / POINTS
    if not path.is_file():
        return {}
    try:
        points = read_sound(path, "does not hold the scores of a run")
    except InputError as error:
        logging.warning("%s They are scored again.", error)
        return {}
    steps = [step for step in points if step.isascii() and step.isdecimal()]
    return {s: points[s] for s in steps if isinstance(points[s], dict)}


def write_points(folder: AnyPath, points: dict[str, dict[str, Any]]) -> None:
    """Write the points of a run, with a checksum of them all."""
    write_checked(folder / POINTS, points)


def read_divergence(folder: AnyPath) -> str | None:
    """What of a run was not finite; None of one that did not diverge.

    A file that is not what was written is told and passed over: its run goes on.
    """
    path = folder / DIVERGED
    if not path.is_file():
        return None
    try:
        return str(read_sound(path, "does not say what was not finite").get("error"))
    except InputError as error:
        logging.warning("%s The run goes on.", error)
        return None


def write_divergence(folder: AnyPath, error: str) -> None:
    """Note that a run diverged, and at what."""
    write_checked(folder / DIVERGED, {"error": error})


def ends_of(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The last point of each run of a comparison's record."""
    for variant in record["variants"]:
        for run in variant["runs"]:
            yield run["points"][-1]


def scores_at_end(record: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores at the end of a comparison's first run, with their numbers of images.

    None where no run has been scored, or an older version kept values alone.
    """
    return next(map(scores_of, ends_of(record)), ())


def scores_of(point: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores of a point; none where an older version kept values alone."""
    found = point.get("record")
    return read_scores(found) if found else ()


def real_at_end(record: Mapping[str, Any], score: str) -> float | None:
    """What real images have, of the first run that has the score."""
    found = (real_of(end, score) for end in ends_of(record))
    return next((real for real in found if real is not None), None)
