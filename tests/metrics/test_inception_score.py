import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from dig_jax.errors import InputError, NonFiniteError
from dig_jax.metrics.inception_score import InceptionScoreSums


def score(logits: np.ndarray, batch: int = 7, **options) -> tuple[float, float]:
    sums = InceptionScoreSums(len(logits), logits.shape[1], **options)
    for start in range(0, len(logits), batch):
        sums.add(logits[start : start + batch].astype(np.float32))
    return sums.score()


def random_logits(seed: int, count: int, classes: int) -> np.ndarray:
    logits = 3 * np.random.default_rng(seed).normal(size=(count, classes))
    return logits.astype(np.float32)


def test_one_split_equals_the_mean_divergence_of_scipy():
    logits = random_logits(0, 50, 12)
    p = softmax(logits.astype(np.float64), axis=1)
    divergences = [entropy(row, p.mean(axis=0)) for row in p]
    expected = np.exp(np.mean(divergences))
    assert score(logits, num_splits=1) == pytest.approx((expected, 0), rel=1e-12)


def test_every_image_is_in_one_split_of_equal_size():
    # Sure of one class each, all classes alike often: a split's score is its number of
    # different classes, so a score of 40 images in 4 splits needs 10 in each.
    logits = 1e4 * np.eye(40)
    assert score(logits, num_splits=4) == pytest.approx((10, 0))


def test_sure_and_diverse_images_score_the_number_of_classes():
    logits = 1e4 * np.eye(8)[np.arange(4000) % 8]
    mean, std = score(logits, batch=500, num_splits=10)
    # 400 images in a split: their classes are even to a tenth.
    assert mean == pytest.approx(8, abs=0.15)
    assert std < 0.1


def test_images_in_the_order_of_their_classes_score_the_same():
    logits = 1e4 * np.eye(8)[np.repeat(np.arange(8), 500)]
    mean, _ = score(logits, batch=500, num_splits=8)
    assert mean == pytest.approx(8, abs=0.2)


def test_images_that_say_nothing_score_one():
    assert score(np.zeros((30, 5))) == pytest.approx((1, 0))


def test_more_images_than_announced_are_refused():
    sums = InceptionScoreSums(3, 5)
    with pytest.raises(InputError, match="of 3 images, got more"):
        sums.add(np.zeros((4, 5), np.float32))


def test_logits_that_are_not_finite_are_refused():
    sums = InceptionScoreSums(3, 5)
    with pytest.raises(NonFiniteError, match="got 15 of 15"):
        sums.add(np.full((3, 5), np.nan, np.float32))
