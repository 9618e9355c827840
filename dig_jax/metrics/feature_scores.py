"""Scores of a set of images by its features, against those of real images.

Names carry the number of images that they were computed from, because most of these
scores depend on it: `fid50k`, `kid10k`, `fd_digits1k`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int
from pydantic import NonNegativeInt, PositiveInt

from dig_jax.errors import InputError
from dig_jax.metrics.extraction import (
    FeatureExtractor,
    FeatureSpace,
    ImageBatches,
    extract_features,
)
from dig_jax.metrics.inception_score import InceptionScoreSums
from dig_jax.metrics.kernel_distance import kernel_distance
from dig_jax.metrics.moments import Moments, MomentSums, feature_distance, moments_of
from dig_jax.metrics.precision_recall import precision_recall


@dataclass(frozen=True)
class FeatureOptions:
    """How features are scored.

    Attributes:
        num_held: Images whose features are kept, for KID, precision and recall: a
            seeded choice. All other scores come from sums. 10,000 are 80 MB.
        kid_subsets: Subsets of the kernel distance.
        kid_subset_size: Images in each.
        num_splits: Parts of the Inception score.
        num_neighbours: Of precision and recall.
        seed: Of what is drawn at random here.
    """

    num_held: NonNegativeInt = 10_000
    kid_subsets: PositiveInt = 100
    kid_subset_size: PositiveInt = 1000
    num_splits: PositiveInt = 10
    num_neighbours: PositiveInt = 3
    seed: NonNegativeInt = 0


@dataclass(frozen=True)
class FeatureSummary:
    """What scores need to know of a set of images.

    Attributes:
        space: Where the features come from.
        moments: Of all images' features.
        spatial: Of the features that keep places (sFID); None where there are none.
        held: Features of some images, or of all.
        inception_score: Its mean and standard deviation over splits.
        label_accuracy: Share of images whose label the network reads.
    """

    space: FeatureSpace
    moments: Moments
    spatial: Moments | None = None
    held: Float32[np.ndarray, "held dim"] | None = None
    inception_score: tuple[float, float] | None = None
    label_accuracy: float | None = None


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
    rng = np.random.default_rng(options.seed)
    is_held = rng.permutation(num_images) < options.num_held
    pool, spatial, scores = MomentSums(extractor.space.dim), None, None
    held, done, right = [], 0, 0
    for features in extract_features(extractor, images, mesh, on_progress):
        batch = slice(done, done + len(features.pool))
        done = batch.stop
        if done > num_images:
            break
        pool.add(features.pool)
        held.append(features.pool[is_held[batch]])
        if features.spatial is not None:
            spatial = spatial or MomentSums(features.spatial.shape[1])
            spatial.add(features.spatial)
        if not extractor.space.domain:  # Inception score is of Inception's classes
            scores = scores or InceptionScoreSums(
                num_images,
                features.logits.shape[1],
                num_splits=options.num_splits,
                seed=options.seed,
            )
            scores.add(features.logits)
        if labels is not None:
            right += int((features.logits.argmax(axis=1) == labels[batch]).sum())
    if done != num_images:
        more = "more" if done > num_images else f"{done}"
        raise InputError(f"Features were to be of {num_images} images, got {more}.")
    return FeatureSummary(
        extractor.space,
        pool.moments(),
        None if spatial is None else spatial.moments(),
        np.concatenate(held) if options.num_held else None,
        None if scores is None else scores.score(),
        None if labels is None else right / num_images,
    )


def scores_from_features(
    generated: FeatureSummary,
    reference: FeatureSummary,
    *,
    options: FeatureOptions | None = None,
    force: bool = False,
) -> dict[str, float]:
    """All scores that the two summaries allow, by name.

    `fid50k` (or `fd_digits50k` of a classifier trained on digits), `sfid50k`,
    `kid10k` and `kid10k_std`, `precision10k`, `recall10k`, `inception_score50k` and
    `inception_score50k_std`, `label_accuracy_digits50k`. The number is of generated
    images, held ones where features are needed; KID, precision and recall are left out
    where either side holds none, sFID where either has no spatial moments.

    Args:
        generated: Of the images to judge.
        reference: Of the real images.
        options: Subsets, neighbours, seed.
        force: Score sets with fewer images than features all the same.

    Raises:
        InputError: The features are of different networks, weights or resize rules, or
            there are fewer images than features.
    """
    options = options or FeatureOptions()
    check_same_space(generated.space, reference.space)
    domain = generated.space.domain
    suffix = f"_{domain}" if domain else ""
    if suffix[-1:].isdigit():
        suffix += "_"  # fd_cifar10_1k
    assert generated.moments.count is not None, "drawn images have been counted"
    count = f"{suffix}{format_count(generated.moments.count)}"
    frechet = "fd" if domain else "fid"
    scores = {
        f"{frechet}{count}": feature_distance(
            generated.moments, reference.moments, force=force
        )
    }
    if generated.spatial is not None and reference.spatial is not None:
        distance = feature_distance(generated.spatial, reference.spatial, force=force)
        scores[f"sfid{count}"] = distance
    if generated.held is not None and reference.held is not None:
        held = f"{suffix}{format_count(len(generated.held))}"
        mean, std = kernel_distance(
            generated.held,
            reference.held,
            num_subsets=options.kid_subsets,
            subset_size=options.kid_subset_size,
            seed=options.seed,
        )
        precision, recall = precision_recall(
            generated.held, reference.held, num_neighbours=options.num_neighbours
        )
        scores |= {f"kid{held}": mean, f"kid{held}_std": std}
        scores |= {f"precision{held}": precision, f"recall{held}": recall}
    if generated.inception_score is not None:
        mean, std = generated.inception_score
        scores[f"inception_score{count}"] = mean
        scores[f"inception_score{count}_std"] = std
    if generated.label_accuracy is not None:
        scores[f"label_accuracy{count}"] = generated.label_accuracy
    return scores


def scores_of_draws(
    images: FeatureSummary,
    reference: FeatureSummary,
    *,
    num_images: int,
    num_draws: int = 3,
    options: FeatureOptions | None = None,
    force: bool = False,
) -> dict[str, tuple[float, float]]:
    """What fewer images score: mean and standard deviation over draws of them.

    Of real test images it is the noise floor; of generated ones, what compares with a
    floor of fewer images. Each draw takes `num_images` of the images that are held, or
    all of them where there are fewer (the scores' names say how many); there is no
    deviation to be had then, and it is 0. What needs more than pooled features (sFID,
    Inception score, label accuracy) is left out.

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
        scores = scores_from_features(
            summary, reference, options=draw_options, force=force
        )
        draws.append({k: v for k, v in scores.items() if not k.endswith("_std")})
    return {
        name: (
            float(np.mean([draw[name] for draw in draws])),
            float(np.std([draw[name] for draw in draws])),
        )
        for name in draws[0]
    }


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


def format_count(count: int) -> str:
    """A number of images as names of scores carry it: 1000 is 1k, 1500 is 1500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)
