"""Mean and covariance of a stream of feature vectors, and their Frechet distance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from dig_jax.errors import InputError, NonFiniteError
from dig_jax.metrics.frechet_pixels import frechet_distance

_BLOCK = 1024


class Moments(NamedTuple):
    """Of `count` vectors (None: unknown); the covariance is over count - 1."""

    count: int | None
    mean: Float64[np.ndarray, "dim"]
    cov: Float64[np.ndarray, "dim dim"]


class MomentSums:
    """Sums of vectors and of their outer products, in float64, of vectors as they come.

    Vectors are summed in blocks of a fixed number, each around its own mean (Chan et
    al. 1979), so that no digits are lost where the mean is large, and the result is a
    function of the sequence alone, not of its batches. Nothing but the sums and the
    block that is not yet full is held.
    """

    def __init__(self, dim: int):
        self._block = np.empty((_BLOCK, dim))
        self._waiting = 0
        self._count = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    def add(self, features: Float[np.ndarray, "batch dim"]) -> None:
        """Take up some vectors.

        Raises:
            NonFiniteError: A value is NaN or infinite; nothing was taken up.
        """
        check_finite(features)
        while len(features):
            taken = features[: _BLOCK - self._waiting]
            self._block[self._waiting : self._waiting + len(taken)] = taken
            self._waiting += len(taken)
            features = features[len(taken) :]
            if self._waiting == _BLOCK:
                self._add_block(self._block)
                self._waiting = 0

    def moments(self) -> Moments:
        """Of all vectors so far; ends the stream.

        Raises:
            InputError: There were fewer than two.
        """
        if self._waiting:
            self._add_block(self._block[: self._waiting])
            self._waiting = 0
        if self._count < 2:
            raise InputError(
                f"A covariance needs at least two images, got {self._count}."
            )
        return Moments(self._count, self._mean, self._scatter / (self._count - 1))

    def _add_block(self, block: Float64[np.ndarray, "batch dim"]) -> None:
        before, count = self._count, self._count + len(block)
        mean = block.mean(axis=0)
        centred = block - mean
        difference = mean - self._mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(difference, difference) * (
            before * len(block) / count
        )
        self._mean = self._mean + difference * (len(block) / count)
        self._count = count


def moments_of(features: Float[np.ndarray, "batch dim"]) -> Moments:
    """Of vectors in memory."""
    sums = MomentSums(features.shape[1])
    sums.add(features)
    return sums.moments()


def feature_distance(
    generated: Moments, reference: Moments, *, force: bool = False
) -> float:
    """Frechet distance of two sets' features, as Gaussians (arXiv:1706.08500, Eq. 6).

    Args:
        generated: Of the images to judge.
        reference: Of the real ones.
        force: Take sets of too few images: their covariance is singular, the distance
            is defined all the same, and biased upwards by much.

    Raises:
        InputError: The sets have other numbers of features, or a set has no more images
            than features.
    """
    dim = len(reference.mean)
    if len(generated.mean) != dim:
        raise InputError(
            f"A Frechet distance needs equally many features in both sets, got "
            f"{len(generated.mean)} and {dim}."
        )
    counts = [m.count for m in (generated, reference) if m.count is not None]
    if min(counts, default=dim + 1) <= dim and not force:
        raise InputError(
            f"A Frechet distance of {dim} features needs more images than features in "
            f"each set, got {generated.count} generated and {reference.count} real "
            "ones; draw more, or force it (the score is then biased upwards)."
        )
    distance = frechet_distance(
        generated.mean, generated.cov, reference.mean, reference.cov
    )
    return max(0.0, distance)  # equal sets leave a rounding error of either sign


def check_finite(features: Float[np.ndarray, "batch dim"]) -> None:
    """Raise NonFiniteError for NaN or infinite features."""
    num_bad = features.size - int(np.isfinite(features).sum())
    if num_bad:
        raise NonFiniteError(
            f"Features need finite values, got {num_bad} of {features.size} that are "
            "not."
        )
