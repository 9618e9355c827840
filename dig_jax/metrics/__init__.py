"""Scores of images against real ones: METRICS from pixels, others from features.

A score means little without the same score of real test images: what real data reaches.
"""

from collections.abc import Iterable

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages, Metric, Table
from dig_jax.metrics import copies, frechet_pixels, label_accuracy

METRICS: Table[Metric] = Table(
    {
        "copies": copies.copies,
        "frechet_pixels": frechet_pixels.frechet_pixels,
        "label_accuracy": label_accuracy.label_accuracy,
    },
    "Scores from pixels by their names in `config.evaluation.metrics`. An entry is a "
    "Metric: (images, train) -> {score's name: value}, both LabelledImages.",
)


def score(
    names: Iterable[str], images: LabelledImages, train: LabelledImages
) -> dict[str, float]:
    """All scores of the metrics named.

    Raises:
        InputError: A name is not in METRICS, a set is empty, or the sets differ in the
            shape of their images.
    """
    names = tuple(names)
    for name in names:
        if name not in METRICS:
            raise InputError(
                f"Unknown metric {name!r}. Available: {', '.join(sorted(METRICS))}."
            )
    for kind, some in (("", images), ("training ", train)):
        if len(some.images) == 0:
            raise InputError(f"Metrics need at least one {kind}image, got none.")
    if images.images.shape[1:] != train.images.shape[1:]:
        raise InputError(
            "Metrics need images of one shape (row, col, rgb), got "
            f"{images.images.shape[1:]} and {train.images.shape[1:]} for the training "
            "images."
        )
    scores: dict[str, float] = {}
    for name in names:
        scores.update(METRICS[name](images, train))
    return scores
