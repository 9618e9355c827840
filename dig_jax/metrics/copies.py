"""How many images are copies of training images."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages

_QUERY_BLOCK = 1024
_TRAIN_BLOCK = 4096


def copies(images: LabelledImages, train: LabelledImages) -> dict[str, float]:
    """Share of images nearer to a training image than other training images are to it.

    An image counts when it is nearer (L2 in pixels) to its nearest training image than
    that one's own nearest training image of other pixels. More than among real test
    images, which copy nothing, is memorization.

    Raises:
        InputError: The training images are all the same.
    """
    return {"copied_share": copied_share(_flatten(images), _flatten(train))}


def copied_share(
    images: UInt8[np.ndarray, "image pixel"], train: UInt8[np.ndarray, "record pixel"]
) -> float:
    """`copies` for one set of flattened images, in bounded memory."""
    distance, nearest = _nearest(images, train)
    # Only training images that are someone's nearest need a neighbour of their own.
    originals, original = np.unique(nearest, return_inverse=True)
    spacing, _ = _nearest(train[originals], train, other_pixels=True)
    if np.isinf(spacing).any():
        raise InputError(
            "copies needs at least two different training images, got "
            f"{len(train)} with the same pixels."
        )
    return float(np.mean(distance < spacing[original]))


def _nearest(
    images: UInt8[np.ndarray, "image pixel"],
    train: UInt8[np.ndarray, "record pixel"],
    *,
    other_pixels: bool = False,
) -> tuple[Float[np.ndarray, "image"], Int[np.ndarray, "image"]]:
    """Squared distance to, and index of, the nearest training image (of other pixels).

    Sums of products of bytes are integers that float64 holds exactly, so neither the
    expanded square nor the order of summation costs any digits, and 0 means equal.
    """
    distance = np.full(len(images), np.inf)
    nearest = np.zeros(len(images), np.int64)
    for row in range(0, len(images), _QUERY_BLOCK):
        rows = slice(row, row + _QUERY_BLOCK)
        x = images[rows].astype(np.float64)
        for col in range(0, len(train), _TRAIN_BLOCK):
            y = train[col : col + _TRAIN_BLOCK].astype(np.float64)
            squared = x @ y.T  # [image, record], turned into distances in place
            squared *= -2
            squared += np.einsum("ij,ij->i", x, x)[:, None]
            squared += np.einsum("ij,ij->i", y, y)
            if other_pixels:
                squared[squared == 0] = np.inf
            block_nearest = squared.argmin(axis=1)
            block_distance = squared[np.arange(len(x)), block_nearest]
            nearer = block_distance < distance[rows]
            nearest[rows][nearer] = col + block_nearest[nearer]
            distance[rows][nearer] = block_distance[nearer]
    return distance, nearest


def _flatten(images: LabelledImages) -> UInt8[np.ndarray, "image pixel"]:
    return images.images.reshape(len(images.images), -1)
