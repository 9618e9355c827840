"""Scores of images against real ones: METRICS of pixels, FEATURE_METRICS of features.

A score means little without the same score of real test images: what real data reaches.
"""

from collections.abc import Iterable

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages, Metric, Table
from dig_jax.metrics import (
    copies,
    frechet_features,
    frechet_pixels,
    inception_score,
    kernel_distance,
    label_accuracy,
    precision_recall,
)
from dig_jax.metrics.feature_summary import FeatureMetric

METRICS: Table[Metric] = Table(
    {
        "copies": copies.copies,
        "frechet_pixels": frechet_pixels.frechet_pixels,
        "label_accuracy": label_accuracy.label_accuracy,
    },
    "Scores from pixels by their names in `config.evaluation.metrics`. An entry is a "
    "Metric: (images, train) -> {score's name: value}, both LabelledImages.",
)

FEATURE_METRICS: Table[FeatureMetric] = Table(
    {
        "frechet": frechet_features.FRECHET,
        "spatial_frechet": frechet_features.SPATIAL_FRECHET,
        "kid": kernel_distance.KID,
        "precision_recall": precision_recall.PRECISION_RECALL,
        "inception_score": inception_score.INCEPTION_SCORE,
        "labels_read": label_accuracy.LABELS_READ,
    },
    "Scores from features of a network, in the order that a table shows them. An entry "
    "is a FeatureMetric.",
)

GREATER_IS_BETTER = {"frechet_pixels": False, "label_accuracy": True}
"""Of scores from pixels by which one may choose."""

COMPARE_AT_EQUAL_NUMBERS = frozenset({"frechet_pixels"})
"""Metrics of pixels whose scores depend on how many images there are."""


def feature_families() -> dict[str, FeatureMetric]:
    """The metric that gives each family of scores of features."""
    return {
        family: metric
        for metric in FEATURE_METRICS.values()
        for family in (*metric.inception, *metric.classifier)
    }


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
