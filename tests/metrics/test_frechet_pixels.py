import numpy as np
import pytest
from scipy.linalg import sqrtm

from dig_jax.errors import InputError
from dig_jax.metrics import frechet_pixels as module
from dig_jax.metrics.frechet_pixels import (
    frechet_distance,
    frechet_of_few,
    pixel_moments,
)


def random_covariance(rng: np.random.Generator, size: int) -> np.ndarray:
    """Eigenvalues between 0.1 and 1, so that sqrtm keeps its digits."""
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return (basis * rng.uniform(0.1, 1.0, size)) @ basis.T


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    rng = np.random.default_rng(0)
    mean1, mean2 = rng.normal(size=(2, 12))
    cov = random_covariance(rng, 12)
    expected = np.sum((mean1 - mean2) ** 2)
    assert frechet_distance(mean1, cov, mean2, cov) == pytest.approx(expected)


def test_commuting_covariances_have_the_distance_of_their_deviations():
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    deviation1, deviation2 = rng.uniform(0.0, 2.0, size=(2, 9))
    mean = np.zeros(9)
    distance = frechet_distance(
        mean, (basis * deviation1**2) @ basis.T, mean, (basis * deviation2**2) @ basis.T
    )
    assert distance == pytest.approx(np.sum((deviation1 - deviation2) ** 2))


def test_normal_distributions_of_one_dimension_have_their_closed_form():
    distance = frechet_distance(
        np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[0.25]])
    )
    assert distance == pytest.approx((1 + 2) ** 2 + (2 - 0.5) ** 2)


@pytest.mark.parametrize(("few", "others"), [(3, 7), (7, 3), (5, 5000)])
def test_few_images_have_the_distance_of_their_covariances(few, others):
    rng = np.random.default_rng(0)
    sets = [
        rng.integers(0, 256, (count, 3, 4, 1), dtype=np.uint8)
        for count in (few, others)
    ]
    expected = frechet_distance(*pixel_moments(sets[0]), *pixel_moments(sets[1]))
    # Where covariances are singular, roots of rounding errors are 1e-8.
    assert frechet_of_few(*sets) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_distance_equals_the_matrix_square_root_of_scipy(seed):
    rng = np.random.default_rng(seed)
    mean1, mean2 = rng.normal(size=(2, 20))
    cov1, cov2 = random_covariance(rng, 20), random_covariance(rng, 20)
    trace = np.trace(cov1 + cov2 - 2 * np.real(np.asarray(sqrtm(cov1 @ cov2))))
    expected = np.sum((mean1 - mean2) ** 2) + trace
    distance = frechet_distance(mean1, cov1, mean2, cov2)
    assert distance == pytest.approx(expected, rel=1e-10)


def test_singular_covariances_have_the_distance_of_their_closed_form():
    u, v = np.array([3.0, 4.0, 0.0]), np.array([0.0, 1.0, 1.0])
    mean = np.zeros(3)
    # For u u^T and v v^T the root's trace is |u . v|.
    expected = u @ u + v @ v - 2 * abs(u @ v)
    distance = frechet_distance(mean, np.outer(u, u), mean, np.outer(v, v))
    # The root of a rounding error of 1e-16 is 1e-8.
    assert distance == pytest.approx(expected, abs=1e-6)


def test_moments_in_blocks_equal_those_of_numpy(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7)
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (50, 4, 3, 1)).astype(np.uint8)
    pixels = images.reshape(50, -1) / 127.5 - 1.0
    mean, cov = pixel_moments(images)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(cov, np.cov(pixels, rowvar=False, ddof=1), atol=1e-14)


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match="at least two images in each set, got 1"):
        pixel_moments(np.zeros((1, 2, 2, 1), np.uint8))
