import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics import label_accuracy as module
from dig_jax.metrics.label_accuracy import label_accuracy


def test_real_digits_are_read_at_more_than_99_percent(digits):
    train, test = digits
    assert label_accuracy(test, train)["label_accuracy"] > 0.99


def test_wrongly_labelled_digits_score_what_is_still_right(digits):
    train, _ = digits
    wrong = LabelledImages(train.images[:100], (train.labels[:100] + 1) % 10)
    half = LabelledImages(
        np.concatenate([train.images[:100], wrong.images]),
        np.concatenate([train.labels[:100], wrong.labels]),
    )
    # The classifier reads every digit that it was trained on.
    assert label_accuracy(half, train)["label_accuracy"] == 0.5
    assert label_accuracy(wrong, train)["label_accuracy"] == 0.0


def test_a_capped_subset_holds_every_label_of_sorted_images(digits, monkeypatch):
    train, test = digits
    order = np.argsort(train.labels)
    sorted_train = LabelledImages(train.images[order], train.labels[order])
    monkeypatch.setattr(module, "MAX_IMAGES", 200)
    # A fitting subset of 200 still reads most digits; one of a single label reads 10%.
    assert label_accuracy(test, sorted_train)["label_accuracy"] > 0.9


def test_unlabelled_training_images_are_refused(digits):
    train, test = digits
    unlabelled = LabelledImages(train.images, np.zeros_like(train.labels))
    with pytest.raises(InputError, match="at least two labels, got 1"):
        label_accuracy(test, unlabelled)


def test_a_label_that_no_training_image_has_is_refused(digits):
    train, test = digits
    other = LabelledImages(test.images, np.full_like(test.labels, 10))
    with pytest.raises(InputError, match=r"0 to 9.*got 10"):
        label_accuracy(other, train)
