"""How often each label occurs in a data set."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from dig_jax.data.damage import MAX_DAMAGED_SHARE
from dig_jax.data.loader import read_once
from dig_jax.interfaces import ImageSource


@runtime_checkable
class CountsLabels(Protocol):
    """A source that may know its labels without reading any image."""

    def count_labels(self) -> Int64[np.ndarray, "class"] | None:
        """How many images each class has; None if they must be read to know it."""
        ...


def label_counts(
    source: ImageSource,
    *,
    num_threads: int = 4,
    max_damaged_share: float = MAX_DAMAGED_SHARE,
) -> Int64[np.ndarray, "class"]:
    """How many images each class has; of length 0 where there are no classes.

    `dig_jax.prepare` writes it down. Where nobody did, as for TFDS's own data sets or
    parts of a split, all images are read once, a damaged one replaced by the next.

    Args:
        source: The images.
        num_threads: As in `load_batches`, if they are read.
        max_damaged_share: Likewise.

    Raises:
        InputError: Too many records are damaged.
    """
    known = source.count_labels() if isinstance(source, CountsLabels) else None
    if known is not None:
        return known
    counts = np.zeros(source.num_classes, np.int64)
    if source.num_classes:
        for batch in read_once(
            source, num_threads=num_threads, max_damaged_share=max_damaged_share
        ):
            counts += np.bincount(batch["label"], minlength=source.num_classes)
    return counts
