"""What a split of a raw data set hands out."""

import numpy as np
from official_archives import (
    sorted_rows,
)


def read(split):
    """Images as they are handed out, and labels."""
    images = list(split.part(0, len(split)))
    return [image.image for image in images], [image.label for image in images]


def assert_same_images(split, images, labels):
    np.testing.assert_array_equal(
        sorted_rows(*read(split)), sorted_rows(images, labels)
    )


def pixels_and_labels(split):
    contents, labels = read(split)
    return sorted(zip(contents, labels, strict=True))
