import numpy as np
import pytest

from dig_jax.errors import InputError, NonFiniteError
from dig_jax.metrics import moments as module
from dig_jax.metrics.moments import MomentSums, feature_distance, moments_of


def random_features(seed: int, count: int, dim: int) -> np.ndarray:
    """Correlated, far from 0, with deviations over two orders of magnitude."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim)) * np.logspace(-1, 1, dim)
    return (rng.normal(size=(count, dim)) @ mix + 5).astype(np.float32)


def distance_by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """The Frechet distance without any root of a covariance, in float64.

    tr (S1 S2)^1/2 is the sum of the singular values of X Y^T, for S1 = X^T X and S2 =
    Y^T Y: right also where there are fewer images than features.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    x = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    y = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(mean + np.sum(x**2) + np.sum(y**2) - 2 * cross)


@pytest.mark.parametrize("block", [1, 7, 50, 64])
def test_streamed_moments_equal_those_of_numpy(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    features = random_features(0, 50, 6)
    sums = MomentSums(6)
    for start in range(0, 50, 13):
        sums.add(features[start : start + 13])
    count, mean, cov = sums.moments()
    x = features.astype(np.float64)
    assert count == 50
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(cov, np.cov(x, rowvar=False), rtol=1e-11)


def test_a_large_mean_costs_no_digits(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    x = np.random.default_rng(1).normal(size=(200, 4))
    # Adding 2**26 keeps 26 bits of each value; a sum of squares would lose them all.
    shifted = x + 2.0**26
    cov = moments_of(shifted).cov
    np.testing.assert_allclose(cov, np.cov(x, rowvar=False), atol=1e-7)


def test_moments_do_not_depend_on_batches_in_any_bit():
    features = random_features(2, 2500, 5)
    one, many = MomentSums(5), MomentSums(5)
    one.add(features)
    for start in range(0, 2500, 64):
        many.add(features[start : start + 64])
    for a, b in zip(one.moments(), many.moments(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("count", "dim"), [(300, 40), (120, 100)], ids=["many", "barely"]
)
def test_distance_equals_float64_without_roots_to_a_millionth(count, dim):
    x, y = random_features(3, count, dim), random_features(4, count + 11, dim)
    distance = feature_distance(moments_of(x), moments_of(y))
    assert distance == pytest.approx(distance_by_singular_values(x, y), rel=1e-6)


def test_a_forced_distance_of_too_few_images_is_that_of_singular_gaussians():
    x, y = random_features(5, 20, 60), random_features(6, 30, 60)
    distance = feature_distance(moments_of(x), moments_of(y), force=True)
    assert distance == pytest.approx(distance_by_singular_values(x, y), rel=1e-6)


@pytest.mark.parametrize(("generated", "real"), [(8, 30), (30, 8), (8, 8)])
def test_no_more_images_than_features_are_refused(generated, real):
    x, y = random_features(7, generated, 8), random_features(8, real, 8)
    message = rf"more images than features.*got {generated} generated and {real} real"
    with pytest.raises(InputError, match=message):
        feature_distance(moments_of(x), moments_of(y))


def test_statistics_of_an_unknown_number_of_images_pass():
    x, y = moments_of(random_features(9, 20, 4)), moments_of(random_features(9, 20, 4))
    # The root of a rounding error of 1e-15 of the trace.
    assert feature_distance(x, y._replace(count=None)) == pytest.approx(0, abs=1e-6)


def test_other_numbers_of_features_are_refused():
    x, y = random_features(10, 20, 4), random_features(11, 20, 5)
    with pytest.raises(InputError, match="got 4 and 5"):
        feature_distance(moments_of(x), moments_of(y))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    features = random_features(12, 20, 4)
    features[3, 2] = value
    sums = MomentSums(4)
    with pytest.raises(NonFiniteError, match="got 1 of 80"):
        sums.add(features)


def test_a_single_vector_has_no_covariance():
    with pytest.raises(InputError, match="two images, got 1"):
        moments_of(random_features(13, 1, 4))
