"""Frechet distance between sets of images in pixel space: FID without a network."""

import numpy as np
from jaxtyping import Float, UInt8

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages, UInt8Images

_BLOCK = 4096


def frechet_pixels(images: LabelledImages, train: LabelledImages) -> dict[str, float]:
    """Frechet distance of the pixels, in [-1, 1], to those of the training images.

    It shrinks as sets grow, so compare at equal numbers. The cost is the cube of the
    values in an image or of the images in the smaller set, whichever are fewer.

    Raises:
        InputError: A set has fewer than two images.
    """
    fewer, more = sorted((images.images, train.images), key=len)
    if len(fewer) < fewer[0].size:
        return {"frechet_pixels": frechet_of_few(fewer, more)}
    moments = pixel_moments(images.images), pixel_moments(train.images)
    return {"frechet_pixels": frechet_distance(*moments[0], *moments[1])}


def frechet_of_few(
    few: UInt8[np.ndarray, "few row col rgb"],
    others: UInt8[np.ndarray, "other row col rgb"],
) -> float:
    """`frechet_distance` of pixels, of fewer images than pixels, without covariances.

    With centred images as the rows of A and B, the covariances are A^T A and B^T B over
    n - 1, and the trace of the product's root is the sum of the singular values of
    A B^T: those of the triangle R of its QR decomposition, which is made a block of B
    at a time.

    Raises:
        InputError: A set has fewer than two images.
    """
    mean1, a = _centred(few)
    mean2 = _mean(others)
    triangle = np.zeros((0, len(few)))
    trace = np.sum(a * a)
    for start in range(0, len(others), _BLOCK):
        block = others[start : start + _BLOCK].reshape(-1, len(mean2)) / 127.5 - 1.0
        block = (block - mean2) / np.sqrt(len(others) - 1)
        trace += np.sum(block * block)
        rows = np.concatenate([triangle, block @ a.T])
        triangle = np.linalg.qr(rows, mode="r")
    singular = np.linalg.svd(triangle, compute_uv=False)
    return float(np.sum((mean1 - mean2) ** 2) + trace - 2 * singular.sum())


def _centred(
    images: UInt8[np.ndarray, "image row col rgb"],
) -> tuple[Float[np.ndarray, "pixel"], Float[np.ndarray, "image pixel"]]:
    """The mean, and deviations from it over the root of n - 1, in [-1, 1]."""
    mean = _mean(images)
    pixels = images.reshape(len(images), -1) / 127.5 - 1.0
    return mean, (pixels - mean) / np.sqrt(len(images) - 1)


def _mean(images: UInt8Images) -> Float[np.ndarray, "pixel"]:
    count = len(images)
    if count < 2:
        raise InputError(
            f"frechet_pixels needs at least two images in each set, got {count}."
        )
    pixels = images.reshape(count, -1)
    return pixels.mean(axis=0, dtype=np.float64) / 127.5 - 1.0


def pixel_moments(
    images: UInt8Images,
) -> tuple[Float[np.ndarray, "pixel"], Float[np.ndarray, "pixel pixel"]]:
    """Mean and covariance (over n - 1) of the flattened pixels, in [-1, 1], in float64.

    Raises:
        InputError: There are fewer than two images.
    """
    count, unit_mean = len(images), _mean(images)
    pixels = images.reshape(count, -1)  # [batch, pixel]
    mean = pixels.mean(axis=0, dtype=np.float64)
    cov = np.zeros((len(mean), len(mean)))
    for start in range(0, count, _BLOCK):
        centred = pixels[start : start + _BLOCK] - mean
        cov += centred.T @ centred
    return unit_mean, cov / (127.5**2 * (count - 1))


def frechet_distance(
    mean1: Float[np.ndarray, "dim"],
    cov1: Float[np.ndarray, "dim dim"],
    mean2: Float[np.ndarray, "dim"],
    cov2: Float[np.ndarray, "dim dim"],
) -> float:
    """Squared 2-Wasserstein distance of two Gaussians (arXiv:1706.08500, Eq. 6).

    |mean1 - mean2|^2 + tr(cov1 + cov2 - 2 (cov1^1/2 cov2 cov1^1/2)^1/2). The product
    under the root is symmetric, so that singular covariances do no harm, as they do in
    `sqrtm`.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(cov1)
    root1 = (eigenvectors * np.sqrt(eigenvalues.clip(min=0))) @ eigenvectors.T
    cross = np.linalg.eigvalsh(root1 @ cov2 @ root1)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(cross.clip(min=0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + trace)
