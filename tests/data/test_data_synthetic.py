"""Random images are functions of their options and index."""

import numpy as np
import pytest

from dig_jax.data import create_dataset
from dig_jax.data.loader import read_images
from dig_jax.errors import InputError


def create(**options):
    return create_dataset("synthetic", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_size": (5, 9)},
        {"image_size": 1, "channels": 1},
        {"channels": 1, "num_classes": 3},
        {"num_classes": 0},
        {"length": 1},
    ],
)
def test_any_shape_and_number_of_classes_can_be_had(options):
    source = create(**{"length": 20} | options)
    images, labels = read_images(source)
    size = options.get("image_size", 32)
    rows, cols = size if isinstance(size, tuple) else (size, size)
    assert images.shape[1:] == (rows, cols, options.get("channels", 3))
    assert labels.min() >= 0
    assert labels.max() < max(1, options.get("num_classes", 10))
    assert len(source.class_names) == source.num_classes


def test_an_image_does_not_depend_on_the_length():
    short, long = create(length=3), create(length=10**12)
    np.testing.assert_array_equal(short[2]["image"], long[2]["image"])


def test_splits_and_seeds_have_no_image_in_common():
    sources = [
        create(length=30, image_size=4, split=split, seed=seed)
        for split in ("train", "test")
        for seed in (0, 1)
    ]
    images = np.concatenate([read_images(source).images for source in sources])
    assert len(np.unique(images, axis=0)) == 4 * 30


def test_pixels_and_labels_are_uniform():
    images, labels = read_images(create(length=2000, image_size=16, channels=1))
    counts = np.bincount(images.ravel(), minlength=256)
    # Chi-square with 255 and 9 degrees of freedom: below mean + 5 standard deviations.
    expected = images.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * np.sqrt(2 * 255)
    counts = np.bincount(labels, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 9 + 5 * np.sqrt(2 * 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "no split 'validation'. Available: train, test"),
        ({"image_size": 0}, "image_size .* got 0x0"),
        ({"image_size": (4, -1)}, "got 4x-1"),
        ({"channels": 2}, "channels must be 1, 3 or 4, got 2"),
        ({"length": 0}, "length .* got 0"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        create(**options)
