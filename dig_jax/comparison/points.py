"""The scores along one run of a comparison: points.json, by step."""

from typing import Any

from absl import logging

from dig_jax.errors import InputError
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath

POINTS = "points.json"


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
