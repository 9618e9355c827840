"""Improved precision and recall: how much of one set's manifold the other covers."""

import numpy as np
from jaxtyping import Float, Float64

from dig_jax.errors import InputError
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.scores import Score

_ROW_BLOCK = 1024
_COL_BLOCK = 4096


def coverage(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """Precision and recall of features that are held."""
    if generated.held is None or reference.held is None:
        return ()
    precision, recall = precision_recall(
        generated.held, reference.held, num_neighbours=options.num_neighbours
    )
    count, domain = len(generated.held), generated.space.domain
    return (
        Score("precision", precision, count, domain),
        Score("recall", recall, count, domain),
    )


PRECISION_RECALL = FeatureMetric(
    coverage, ("precision", "recall"), ("precision", "recall"), greater_is_better=True
)


def precision_recall(
    generated: Float[np.ndarray, "image dim"],
    reference: Float[np.ndarray, "record dim"],
    *,
    num_neighbours: int = 3,
) -> tuple[float, float]:
    """Shares of each set that the other's manifold covers (arXiv:1904.06991).

    Precision is the generated images' share, recall the real ones'.

    A set's manifold is the union of balls around its features, each as wide as the
    distance to its `num_neighbours`-th nearest other. Recall grows with the number of
    generated images: compare at equal numbers.

    Raises:
        InputError: A set has too few images for that many neighbours.
    """
    fewest = min(len(generated), len(reference))
    if fewest <= num_neighbours:
        raise InputError(
            f"Precision and recall with {num_neighbours} neighbours need at least "
            f"{num_neighbours + 1} images in each set, got {fewest}."
        )
    generated_radius = squared_radii(generated, num_neighbours)
    reference_radius = squared_radii(reference, num_neighbours)
    real = np.zeros(len(generated), bool)
    reached = np.zeros(len(reference), bool)
    for rows in _blocks(len(generated), _ROW_BLOCK):
        for cols in _blocks(len(reference), _COL_BLOCK):
            squared = _squared_distances(generated[rows], reference[cols])
            real[rows] |= np.any(squared <= reference_radius[cols], axis=1)
            within = squared <= generated_radius[rows, None]
            reached[cols] |= np.any(within, axis=0)
    return float(real.mean()), float(reached.mean())


def squared_radii(
    features: Float[np.ndarray, "image dim"], num_neighbours: int
) -> Float64[np.ndarray, "image"]:
    """Squared distance of each vector to its n-th nearest other, in bounded memory."""
    radii = np.empty(len(features))
    for rows in _blocks(len(features), _ROW_BLOCK):
        x = features[rows]
        nearest = np.full((len(x), num_neighbours), np.inf)
        for cols in _blocks(len(features), _COL_BLOCK):
            squared = _squared_distances(x, features[cols])
            # A vector is not its own neighbour; an equal one is.
            row, col = (
                np.arange(rows.start, rows.stop),
                np.arange(cols.start, cols.stop),
            )
            squared[row[:, None] == col] = np.inf
            nearest = np.concatenate([nearest, squared], axis=1)
            nearest = np.partition(nearest, num_neighbours - 1, axis=1)
            nearest = nearest[:, :num_neighbours]
        radii[rows] = nearest.max(axis=1)
    return radii


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def _squared_distances(
    x: Float[np.ndarray, "left dim"], y: Float[np.ndarray, "right dim"]
) -> Float64[np.ndarray, "left right"]:
    x, y = x.astype(np.float64), y.astype(np.float64)
    squared = x @ y.T
    squared *= -2
    squared += (x * x).sum(axis=1)[:, None]
    squared += (y * y).sum(axis=1)
    return np.maximum(squared, 0, out=squared)
