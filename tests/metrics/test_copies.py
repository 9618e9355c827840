import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics import copies as module
from dig_jax.metrics.copies import copied_share, copies


def random_pixels(seed: int, count: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (count, 12)).astype(np.uint8)


def brute_force_share(images: np.ndarray, train: np.ndarray) -> float:
    copied = 0
    for image in images.astype(int):
        to_train = [np.sum((image - other) ** 2) for other in train.astype(int)]
        nearest = train[int(np.argmin(to_train))].astype(int)
        spacing = [np.sum((nearest - other) ** 2) for other in train.astype(int)]
        copied += min(to_train) < min(s for s in spacing if s > 0)
    return copied / len(images)


def test_exact_copies_all_count():
    train = random_pixels(0, 40)
    assert copied_share(train[:15], train) == 1.0


def test_a_copy_of_a_duplicated_training_image_counts():
    train = random_pixels(0, 40)
    assert copied_share(train[:5], np.concatenate([train, train])) == 1.0


def test_images_far_from_all_training_images_never_count():
    train = random_pixels(0, 40, top=20)
    assert copied_share(255 - random_pixels(1, 15, top=20), train) == 0.0


# Few values make ties, which must not count.
@pytest.mark.parametrize("top", [3, 256])
def test_share_in_blocks_equals_brute_force(monkeypatch, top):
    monkeypatch.setattr(module, "_QUERY_BLOCK", 7)
    monkeypatch.setattr(module, "_TRAIN_BLOCK", 11)
    train, images = random_pixels(2, 60, top), random_pixels(3, 50, top)
    share = copied_share(images, train)
    assert share == brute_force_share(images, train)
    assert 0 < share < 1


def test_new_draws_of_the_training_distribution_score_what_the_test_images_score():
    def draw(seed: int) -> LabelledImages:
        pixels = random_pixels(seed, 600).reshape(-1, 2, 2, 3)
        return LabelledImages(pixels, np.zeros(600, np.int32))

    shares = [copies(draw(seed), draw(4))["copied_share"] for seed in (5, 6)]
    # Five standard deviations of the difference of two shares of 600 are 0.14 at most.
    assert abs(shares[0] - shares[1]) < 0.14


def test_training_images_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="two different training images, got 4"):
        copied_share(random_pixels(0, 3), np.zeros((4, 12), np.uint8))
