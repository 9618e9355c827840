"""Images that several metrics are tested with."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dig_jax.interfaces import LabelledImages


@pytest.fixture(scope="session")
def digits() -> tuple[LabelledImages, LabelledImages]:
    """Scikit-learn's digits: 1,500 to train and 297 to test, at random."""
    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1500], order[1500:]
    return (
        LabelledImages(images[train], labels[train].astype(np.int32)),
        LabelledImages(images[test], labels[test].astype(np.int32)),
    )
