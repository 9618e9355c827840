"""How often a classifier of real images reads the label that was asked for."""

import numpy as np
from jaxtyping import Float, Int

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages, UInt8Images
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.scores import Score

MAX_IMAGES = 5_000
"""A support vector machine costs the square of its images: a subset must serve."""


def label_accuracy(images: LabelledImages, train: LabelledImages) -> dict[str, float]:
    """Share of images whose label an RBF support vector machine reads from the pixels.

    It is trained on the real training images, pixels in [0, 1], with C = 5 and gamma =
    1 / (number of values * their variance). Of each set, at most MAX_IMAGES images,
    evenly spread over it, are used. On plain pixels this is a judge for digits and the
    like; natural images it reads poorly, as the score of real test images then says.

    Raises:
        InputError: The training images have fewer than two labels, or an image has a
            label that none of them has.
    """
    from sklearn.svm import SVC

    classes = np.unique(train.labels)
    if len(classes) < 2:
        raise InputError(
            "label_accuracy needs training images with at least two labels, got "
            f"{len(classes)}. Leave it out for data without labels."
        )
    unknown = np.setdiff1d(images.labels, classes)
    if len(unknown):
        raise InputError(
            "label_accuracy needs images with labels of training images "
            f"({classes[0]} to {classes[-1]}), got {unknown[0]}."
        )
    classifier = SVC(C=5.0, gamma="scale").fit(*_subset(train))
    return {"label_accuracy": float(classifier.score(*_subset(images)))}


def labels_read(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """The share that the network of the features read with them."""
    if generated.label_accuracy is None:
        return ()
    share, count = generated.label_accuracy, generated.num_images
    return (Score("label_accuracy", share, count, generated.space.domain),)


LABELS_READ = FeatureMetric(
    labels_read,
    classifier=("label_accuracy",),
    greater_is_better=True,
    needs="all",
    reference="",
)


def _subset(
    images: LabelledImages,
) -> tuple[Float[np.ndarray, "batch pixel"], Int[np.ndarray, "batch"]]:
    count = len(images.images)
    index = np.linspace(0, count - 1, min(count, MAX_IMAGES)).astype(int)
    return _unit_pixels(images.images[index]), images.labels[index]


def _unit_pixels(images: UInt8Images) -> Float[np.ndarray, "batch pixel"]:
    return images.reshape(len(images), -1) / np.float32(255)
