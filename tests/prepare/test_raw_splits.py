"""Splits of raw data sets: their order and their parts."""

import numpy as np
from official_archives import (
    random_images,
)
from raw_splits import read

from dig_jax.prepare.splits import ArraySplit, shuffled


def test_an_order_is_random_complete_and_always_the_same():
    order = shuffled(1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, shuffled(1000))
    # The mean place of 100 of 1,000 has a standard deviation of 27: five of them.
    assert abs(order[:100].mean() - 499.5) < 137


def test_parts_of_a_split_make_the_whole(rng):
    split = ArraySplit("here", random_images(rng, 7), np.arange(7))
    parts = [label for start in (0, 3, 6) for label in list_labels(split, start)]
    assert parts == read(split)[1]


def list_labels(split, start):
    return [image.label for image in split.part(start, start + 3)]
