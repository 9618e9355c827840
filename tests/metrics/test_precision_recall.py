import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from dig_jax.errors import InputError
from dig_jax.metrics import precision_recall as module
from dig_jax.metrics.precision_recall import precision_recall, squared_radii


def random_features(seed: int, count: int, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def by_brute_force(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """Algorithm 1 of arXiv:1904.06991, point by point."""

    def share(points: np.ndarray, centres: np.ndarray) -> float:
        inside = 0
        for point in points:
            for i, centre in enumerate(centres):
                others = np.delete(centres, i, axis=0)
                radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
                if np.linalg.norm(point - centre) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    x, y = x.astype(np.float64), y.astype(np.float64)
    return share(x, y), share(y, x)


@pytest.mark.parametrize("k", [1, 3])
def test_blocks_give_what_the_definition_gives(monkeypatch, k):
    monkeypatch.setattr(module, "_ROW_BLOCK", 7)
    monkeypatch.setattr(module, "_COL_BLOCK", 11)
    x, y = random_features(0, 40), random_features(1, 33) * np.float32(1.3)
    scores = precision_recall(x, y, num_neighbours=k)
    assert scores == by_brute_force(x, y, k)
    assert 0 < scores[0] < 1


def test_radii_are_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr(module, "_ROW_BLOCK", 16)
    monkeypatch.setattr(module, "_COL_BLOCK", 10)
    x = random_features(2, 50).astype(np.float64)
    distances, _ = NearestNeighbors(n_neighbors=4).fit(x).kneighbors(x)
    # scikit-learn's first neighbour is the point itself.
    np.testing.assert_allclose(squared_radii(x, 3), distances[:, 3] ** 2, rtol=1e-9)


def test_equal_points_are_each_others_neighbours():
    x = np.repeat(random_features(3, 5), 4, axis=0)
    np.testing.assert_allclose(squared_radii(x, 3), 0, atol=1e-12)


def test_the_same_images_reach_one_and_far_ones_zero():
    x = random_features(4, 60)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x + np.float32(100), x) == (0.0, 0.0)


def test_images_of_a_part_are_precise_and_recall_little():
    x = random_features(5, 400, dim=2)
    part = random_features(6, 400, dim=2) * np.float32(0.1)
    precision, recall = precision_recall(part, x)
    assert precision > 0.99
    assert recall < 0.2
    assert precision_recall(x, part) == (recall, precision)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 4 images in each set, got 3"):
        precision_recall(random_features(0, 3), random_features(1, 9))
