import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from dig_jax.errors import InputError
from dig_jax.metrics.kernel_distance import kernel_distance


def random_features(seed: int, count: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def mmd2_by_sums(x: np.ndarray, y: np.ndarray) -> float:
    """Eq. 4 of arXiv:1801.01401, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    x, y = x.astype(np.float64), y.astype(np.float64)
    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i, j in itertools.permutations(range(m), 2))
    yy = sum(k(y[i], y[j]) for i, j in itertools.permutations(range(n), 2))
    xy = sum(k(a, b) for a in x for b in y)
    return xx / (m * (m - 1)) + yy / (n * (n - 1)) - 2 * xy / (m * n)


def test_one_subset_of_everything_is_the_sum_over_pairs():
    x, y = random_features(0, 12), random_features(1, 12) + np.float32(0.3)
    distance, std = kernel_distance(x, y)
    assert distance == pytest.approx(mmd2_by_sums(x, y), rel=1e-10)
    assert std == 0


def test_subsets_average_to_the_distance_of_the_whole_sets():
    x, y = random_features(2, 400), random_features(3, 300) + np.float32(0.5)
    kernels = [
        polynomial_kernel(a.astype(float), b.astype(float), degree=3, coef0=1)
        for a, b in ((x, x), (y, y), (x, y))
    ]
    whole = (
        (kernels[0].sum() - np.trace(kernels[0])) / (400 * 399)
        + (kernels[1].sum() - np.trace(kernels[1])) / (300 * 299)
        - 2 * kernels[2].mean()
    )
    mean, std = kernel_distance(x, y, num_subsets=400, subset_size=50)
    # Four standard errors of the mean of 400 draws.
    assert abs(mean - whole) < 4 * std / 20
    assert std > 0


def test_it_is_unbiased_around_zero_for_one_distribution():
    distances = [
        kernel_distance(random_features(2 * i, 30), random_features(2 * i + 1, 30))[0]
        for i in range(200)
    ]
    error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 4 * error
    assert min(distances) < 0


def test_a_seed_gives_the_same_subsets():
    x, y = random_features(4, 60), random_features(5, 70)
    first, again, other = (
        kernel_distance(x, y, num_subsets=5, subset_size=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match="two images in each set, got 1 and 4"):
        kernel_distance(random_features(0, 1), random_features(1, 4))
