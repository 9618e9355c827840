import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from dig_jax.metrics.feature_diversity import feature_diversity


def random_features(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 1.0, shape)


def test_diversity_equals_numpy_in_float64():
    h = random_features(3, 4, 10, 6)
    expected = [
        np.mean([np.linalg.norm(image - image.mean(axis=0)) for image in block])
        for block in h
    ]
    # float32 keeps seven digits.
    np.testing.assert_allclose(feature_diversity(jnp.asarray(h)), expected, rtol=1e-5)


def test_the_mean_over_the_nodes_is_the_minimizer():
    h = random_features(1, 1, 7, 4)
    found = minimize(lambda row: np.sum((h[0, 0] - row) ** 2), np.zeros(4), tol=1e-12)
    diversity = feature_diversity(jnp.asarray(h))[0]
    np.testing.assert_allclose(diversity, np.sqrt(found.fun), rtol=1e-5)


def test_equal_nodes_have_none():
    row = random_features(2, 3, 1, 5)
    diversity = feature_diversity(jnp.asarray(np.repeat(row, 8, axis=2)))
    # The mean of equal numbers is off by rounding alone.
    np.testing.assert_allclose(diversity, 0.0, atol=1e-5)


def test_half_precision_features_are_summed_in_float32():
    # 4,096 squares of 1 add up to 256 in bfloat16, which stops counting there.
    signs = np.where(np.arange(4096) % 2, 1.0, -1.0).reshape(1, 1, 4096, 1)
    diversity = feature_diversity(jnp.asarray(signs, jnp.bfloat16))
    assert diversity.dtype == jnp.float32
    assert diversity[0] == 64.0
