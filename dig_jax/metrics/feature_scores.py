"""Scores of a set of images by its features, against those of real images.

Each says how many images it is of, because most of these scores depend on it.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from dig_jax.errors import InputError
from dig_jax.metrics import FEATURE_METRICS
from dig_jax.metrics.extraction import (
    FeatureExtractor,
    FeatureSpace,
    HostFeatures,
    ImageBatches,
    extract_features,
)
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.inception_score import InceptionScoreSums
from dig_jax.metrics.moments import MomentSums, moments_of
from dig_jax.metrics.scores import Score


def summarize_images(
    extractor: FeatureExtractor,
    images: ImageBatches,
    num_images: int,
    mesh: Mesh,
    *,
    labels: Int[np.ndarray, "image"] | None = None,
    options: FeatureOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> FeatureSummary:
    """One pass of the network over images: each exactly once, none held.

    Args:
        extractor: The network.
        images: Batches of uint8 images.
        num_images: How many there are in all.
        mesh: Devices that they are spread over.
        labels: What each image shows, if the network was trained on these labels.
        options: What is held, and seeds.
        on_progress: Called with the number of images done so far.

    Raises:
        InputError: Fewer than two images, other than `num_images`, or not uint8; or
            labels for a network that was not trained on them.
        NonFiniteError: The network's features are not finite.
    """
    options = options or FeatureOptions()
    if labels is not None and not extractor.space.domain:
        raise InputError(
            f"{extractor.space.name} was not trained on the data set's labels: leave "
            "labels out."
        )
    sums = _Sums(extractor.space, num_images, labels, options)
    for features in extract_features(extractor, images, mesh, on_progress):
        if sums.done + len(features.pool) > num_images:
            raise InputError(f"Features were to be of {num_images} images, got more.")
        sums.add(features)
    if sums.done != num_images:
        raise InputError(
            f"Features were to be of {num_images} images, got {sums.done}."
        )
    return sums.summary()


class _Sums:
    """What a summary is made of, batch after batch.

    Attributes:
        done: Images that were added.
    """

    def __init__(
        self,
        space: FeatureSpace,
        num_images: int,
        labels: Int[np.ndarray, "image"] | None,
        options: FeatureOptions,
    ) -> None:
        self._space, self._labels, self._options = space, labels, options
        rng = np.random.default_rng(options.seed)
        self._is_held = rng.permutation(num_images) < options.num_held
        self._pool, self._spatial = MomentSums(space.dim), None
        self._scores: InceptionScoreSums | None = None
        self._held: list[np.ndarray] = []
        self.done, self._right = 0, 0

    def add(self, features: HostFeatures) -> None:
        """Add those of a batch."""
        batch = slice(self.done, self.done + len(features.pool))
        self.done = batch.stop
        self._pool.add(features.pool)
        self._held.append(features.pool[self._is_held[batch]])
        if features.spatial is not None:
            self._spatial = self._spatial or MomentSums(features.spatial.shape[1])
            self._spatial.add(features.spatial)
        if not self._space.domain:  # Inception score is of Inception's classes
            self._scores = self._scores or InceptionScoreSums(
                len(self._is_held),
                features.logits.shape[1],
                num_splits=self._options.num_splits,
                seed=self._options.seed,
            )
            self._scores.add(features.logits)
        if self._labels is not None:
            read = features.logits.argmax(axis=1)
            self._right += int((read == self._labels[batch]).sum())

    def summary(self) -> FeatureSummary:
        """Of all that was added."""
        labels = self._labels
        return FeatureSummary(
            self._space,
            self._pool.moments(),
            None if self._spatial is None else self._spatial.moments(),
            np.concatenate(self._held) if self._options.num_held else None,
            None if self._scores is None else self._scores.score(),
            None if labels is None else self._right / len(labels),
        )


def scores_from_features(
    generated: FeatureSummary,
    reference: FeatureSummary,
    *,
    options: FeatureOptions | None = None,
    force: bool = False,
    metrics: Iterable[FeatureMetric] | None = None,
) -> tuple[Score, ...]:
    """All scores that the two summaries allow, in the order of FEATURE_METRICS.

    KID, precision and recall are of the images whose features are held, and left out
    where either side holds none; sFID is left out where either has no spatial moments.

    Args:
        generated: Of the images to judge.
        reference: Of the real images.
        options: Subsets, neighbours, seed.
        force: Score sets with fewer images than features all the same.
        metrics: These entries of FEATURE_METRICS alone.

    Raises:
        InputError: The features are of different networks, weights or resize rules, or
            there are fewer images than features.
    """
    options = options or FeatureOptions()
    options = replace(options, force=force or options.force)
    check_same_space(generated.space, reference.space)
    chosen = FEATURE_METRICS.values() if metrics is None else metrics
    return tuple(
        score
        for metric in chosen
        for score in metric.score(generated, reference, options)
    )


def scores_of_draws(
    images: FeatureSummary,
    reference: FeatureSummary,
    *,
    num_images: int,
    num_draws: int = 3,
    options: FeatureOptions | None = None,
    force: bool = False,
) -> tuple[Score, ...]:
    """What fewer images score: mean and standard deviation over draws of them.

    Of real test images it is the noise floor; of generated ones, what compares with a
    floor of fewer images. Each draw takes `num_images` of the images that are held, or
    all of them where there are fewer; there is no deviation to be had then. What needs
    more than pooled features (sFID, Inception score, label accuracy) is left out.

    Raises:
        InputError: The images' features were not held, or as `scores_from_features`.
    """
    options = options or FeatureOptions()
    if images.held is None:
        raise InputError("Scores of draws need features held, got num_held=0.")
    size = min(num_images, len(images.held))
    num_draws = 1 if size == len(images.held) else num_draws
    draws = []
    for seed in range(num_draws):
        rng = np.random.default_rng((options.seed, seed))
        drawn = images.held[np.sort(rng.permutation(len(images.held))[:size])]
        summary = FeatureSummary(images.space, moments_of(drawn), held=drawn)
        draw_options = replace(
            options,
            seed=options.seed + seed,
            kid_subsets=-(-options.kid_subsets // num_draws),
        )
        draws.append(
            scores_from_features(summary, reference, options=draw_options, force=force)
        )
    return tuple(_mean_of(scores) for scores in zip(*draws, strict=True))


def _mean_of(scores: tuple[Score, ...]) -> Score:
    """Of the same score of several draws; no deviation where there is none."""
    values = [score.value for score in scores]
    std = float(np.std(values))
    return replace(scores[0], value=float(np.mean(values)), std=std or None)


def check_same_space(generated: FeatureSpace, reference: FeatureSpace) -> None:
    """Raise InputError unless features of the two can be compared."""
    if generated != reference:
        raise InputError(
            "Scores compare features of one network with the same weights and resize "
            f"rule, got {describe_space(generated)} for the generated images and "
            f"{describe_space(reference)} for the reference."
        )


def describe_space(space: FeatureSpace) -> str:
    """A space in words."""
    return (
        f"{space.name} ({space.weights}, resize {space.resize}, {space.dim} features)"
    )
