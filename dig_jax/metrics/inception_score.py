"""Inception score: how sure a classifier is of each image, how diverse over all."""

import numpy as np
from jaxtyping import Float

from dig_jax.errors import InputError
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.moments import check_finite
from dig_jax.metrics.scores import Score


def inception_score(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """The score that was taken with the features; the reference does not matter."""
    if generated.inception_score is None:
        return ()
    mean, std = generated.inception_score
    domain = generated.space.domain
    return (Score("inception_score", mean, generated.num_images, domain, std=std),)


INCEPTION_SCORE = FeatureMetric(
    inception_score,
    ("inception_score",),
    greater_is_better=True,
    needs="all",
    reference="",
)


class InceptionScoreSums:
    """exp(E_x KL(p(y | x) || p(y))) from sums over a stream of logits, in float64.

    Images are dealt to the splits at random (seeded), so that the score does not depend
    on their order: images in the order of their labels would fill splits of one label
    each. p(y | x) is the softmax of all logits, the 1008 of the FID network, where the
    published scores leave out the bias (arXiv:1606.03498, and the ADM evaluator).

    Args:
        num_images: How many will come.
        num_logits: Classes.
        num_splits: Parts that each get a score of their own.
        seed: Of the dealing.
    """

    def __init__(
        self, num_images: int, num_logits: int, *, num_splits: int = 10, seed: int = 0
    ):
        num_splits = max(1, min(num_splits, num_images))
        order = np.random.default_rng(seed).permutation(num_images)
        self._split = order * num_splits // max(1, num_images)
        self._done = 0
        self._count = np.zeros(num_splits)
        self._entropy = np.zeros(num_splits)  # sum of p log p
        self._probability = np.zeros((num_splits, num_logits))

    def add(self, logits: Float[np.ndarray, "batch class"]) -> None:
        """Take up some images' logits.

        Raises:
            InputError: More images came than were said to come.
            NonFiniteError: A logit is NaN or infinite.
        """
        check_finite(logits)
        split = self._split[self._done : self._done + len(logits)]
        if len(split) < len(logits):
            raise InputError(
                f"Inception score was to be of {len(self._split)} images, got more."
            )
        self._done += len(logits)
        z = logits.astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        np.add.at(self._count, split, 1)
        np.add.at(self._entropy, split, (p * log_p).sum(axis=1))
        np.add.at(self._probability, split, p)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits."""
        mean = self._probability / self._count[:, None]
        log_mean = np.log(np.where(mean > 0, mean, 1))
        scores = np.exp(self._entropy / self._count - (mean * log_mean).sum(axis=1))
        return float(scores.mean()), float(scores.std())
