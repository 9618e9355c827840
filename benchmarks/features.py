"""What scores by features cost: the networks, and the arithmetic on the host.

    python benchmarks/features.py [--images=32] [--held=5000]

Inception with random weights (their values do not change its time), the small
classifier's training at three image sizes, and each score at the FID network's 2,048
features. The Frechet distance of 1,000 images, fewer than features, is compared with
the sum of singular values that it equals (see tests/metrics/test_moments.py).

A core's seconds are processor time over all threads, which other work on the machine
disturbs little; the wall's are beside them.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from common import describe_machine
from jax.sharding import Mesh

from dig_jax.interfaces import LabelledImages
from dig_jax.metrics.extraction import extract_features
from dig_jax.metrics.kernel_distance import kernel_distance
from dig_jax.metrics.moments import feature_distance, moments_of
from dig_jax.metrics.networks.inception import inception_extractor
from dig_jax.metrics.networks.inception_weights import random_weights
from dig_jax.metrics.networks.small_classifier import (
    ClassifierOptions,
    train_classifier,
)
from dig_jax.metrics.precision_recall import precision_recall

DIM = 2048


class Seconds(NamedTuple):
    """What a call took: of one core's time, and by the clock on the wall."""

    core: float
    wall: float


def spend(run: Callable[[], object]) -> Seconds:
    """Time of one call; these take seconds."""
    core, wall = time.process_time(), time.perf_counter()
    run()
    return Seconds(time.process_time() - core, time.perf_counter() - wall)


def spend_on_inception(count: int) -> Seconds:
    """Features of 32x32 images, compiled before."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    extractor = inception_extractor(random_weights(0))
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3))
    batches = [images.astype(np.uint8)]

    def run() -> None:
        for _ in extract_features(extractor, batches, mesh):
            pass

    run()
    return spend(run)


def spend_on_classifier(side: int, rgb: int) -> Seconds:
    """A whole training with the default options, compilation included."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2000, side, side, rgb)).astype(np.uint8)
    labels = rng.integers(0, 10, 2000).astype(np.int32)
    train = LabelledImages(images, labels)
    return spend(lambda: train_classifier(train, ClassifierOptions()))


def random_features(seed: int, count: int) -> np.ndarray:
    """Skewed, with a spectrum that falls as 1 / k, like pooled ReLU features."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, DIM + 1) ** -0.5
    mix = np.random.default_rng(9).normal(size=(DIM, DIM)) / DIM**0.5
    return np.abs((rng.normal(size=(count, DIM)) * scale) @ mix).astype(np.float32)


def distance_by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """The Frechet distance without a root of a covariance."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    x = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    y = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(mean + np.sum(x**2) + np.sum(y**2) - 2 * cross)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--held", type=int, default=5000)
    options = parser.parse_args()
    print(f"{describe_machine()}\n\n| what | a core's s | wall, s |\n|---|---|---|")

    def row(what: str, spent: Seconds) -> None:
        print(f"| {what} | {spent.core:.1f} | {spent.wall:.1f} |", flush=True)

    inception = spend_on_inception(options.images)
    row(f"Inception features of {options.images} images", inception)
    for side, rgb in ((8, 1), (32, 3), (64, 3)):
        row(
            f"training the classifier, {side}x{side}x{rgb}",
            spend_on_classifier(side, rgb),
        )
    x, y = random_features(0, options.held), random_features(1, options.held)
    row(f"moments of {len(x)}", spend(lambda: moments_of(x)))
    a, b = moments_of(x[:1000]), moments_of(y)
    row("Frechet distance", spend(lambda: feature_distance(a, b, force=True)))
    row("kernel distance, 100 subsets of 1,000", spend(lambda: kernel_distance(x, y)))
    row(f"precision and recall, {len(x)} each", spend(lambda: precision_recall(x, y)))
    distance = feature_distance(a, b, force=True)
    exact = distance_by_singular_values(x[:1000], y)
    error = abs(distance / exact - 1)
    print(
        f"\nInception: {options.images / inception.core:.2f} images/s of a core. "
        f"Frechet distance of 1,000 images: relative error {error:.1e}."
    )


if __name__ == "__main__":
    main()
