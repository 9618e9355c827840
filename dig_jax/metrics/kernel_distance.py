"""Kernel Inception distance: a squared maximum mean discrepancy of features."""

import numpy as np
from jaxtyping import Float, Float64

from dig_jax.errors import InputError
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.scores import Score


def kid(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """The kernel distance of features that are held, with its standard deviation."""
    if generated.held is None or reference.held is None:
        return ()
    mean, std = kernel_distance(
        generated.held,
        reference.held,
        num_subsets=options.kid_subsets,
        subset_size=options.kid_subset_size,
        seed=options.seed,
    )
    count, domain = len(generated.held), generated.space.domain
    return (Score("kid", mean, count, domain, std=std),)


KID = FeatureMetric(kid, ("kid",), ("kid",))


def kernel_distance(
    generated: Float[np.ndarray, "image dim"],
    reference: Float[np.ndarray, "record dim"],
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Unbiased MMD^2, its mean and standard deviation over subsets (arXiv:1801.01401).

    The kernel is (x . y / dim + 1)^3. Each subset draws `subset_size` vectors of each
    set without replacement, or as many as the smaller set has; if that takes all of
    both, there is one subset and no deviation. The expectation does not depend on the
    number of images, and values below 0 occur: the estimate is unbiased, not positive.

    Raises:
        InputError: A set has fewer than two vectors.
    """
    size = min(subset_size, len(generated), len(reference))
    if size < 2:
        raise InputError(
            f"A kernel distance needs at least two images in each set, got "
            f"{len(generated)} and {len(reference)}."
        )
    if size == len(generated) == len(reference):
        num_subsets = 1
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(num_subsets):
        x = generated[rng.choice(len(generated), size, replace=False)]
        y = reference[rng.choice(len(reference), size, replace=False)]
        distances.append(_unbiased_mmd2(x.astype(np.float64), y.astype(np.float64)))
    return float(np.mean(distances)), float(np.std(distances))


def _unbiased_mmd2(
    x: Float64[np.ndarray, "subset dim"], y: Float64[np.ndarray, "subset dim"]
) -> float:
    """Eq. 4 of arXiv:1801.01401: an image is not compared with itself."""
    size = len(x)
    within = 0.0
    for z in (x, y):
        kernel = _kernel(z, z)
        within += (kernel.sum() - np.trace(kernel)) / (size * (size - 1))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(
    x: Float64[np.ndarray, "left dim"], y: Float64[np.ndarray, "right dim"]
) -> Float64[np.ndarray, "left right"]:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base
