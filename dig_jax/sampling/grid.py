"""Pictures of many samples."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from dig_jax.experiment import Experiment
from dig_jax.interfaces import (
    UInt8Images,
)
from dig_jax.reporting.images import choose_scale, image_grid, name_rows

MOST_ROWS = 20
"""Classes that a picture of samples has a row for."""


def class_names(experiment: Experiment) -> tuple[str, ...]:
    """A name for each label, if only its digits; () for networks without labels."""
    count = experiment.backbone.num_classes
    return experiment.data.class_names or tuple(map(str, range(count)))


def sample_grid(
    images: UInt8Images,
    labels: Int[np.ndarray, "batch"] | None,
    columns: int = 10,
    class_names: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of samples: a row for each of up to 20 classes, its name beside it.

    Rows that are shorter than others end in white. Of more classes, of one, or without
    any, the first images in the order they have; of one, its name is beside the first.

    Args:
        images: The samples.
        labels: One for each, or None.
        columns: Images in a row, at most.
        class_names: A name for each label; () to draw none.
    """
    scale = choose_scale(max(images.shape[1:3]))
    classes = [] if labels is None else np.unique(labels).tolist()
    rows = [images[labels == label][:columns] for label in classes]
    if 2 <= len(rows) <= MOST_ROWS:
        columns = max(map(len, rows))
        white = np.full_like(images[:1], 255)
        shown = np.concatenate(
            [np.concatenate([row, *[white] * (columns - len(row))]) for row in rows]
        )
    else:
        shown, classes = images[: columns**2], classes if len(rows) == 1 else []
    grid = image_grid(shown, columns, scale=scale)
    if not class_names or not classes:
        return grid
    return name_rows(
        grid, [class_names[int(label)] for label in classes], images, scale
    )
