"""Frechet distance between sets of images in pixel space: FID without a network."""

import numpy as np
from jaxtyping import Float

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages, UInt8Images

_BLOCK = 4096


def frechet_pixels(images: LabelledImages, train: LabelledImages) -> dict[str, float]:
    """Frechet distance of the pixels, in [-1, 1], to those of the training images.

    It shrinks as sets grow, so compare at equal numbers. The cost is the cube of the
    values in an image: nothing for digits, minutes for 64x64 RGB.

    Raises:
        InputError: A set has fewer than two images.
    """
    moments = pixel_moments(images.images), pixel_moments(train.images)
    return {"frechet_pixels": frechet_distance(*moments[0], *moments[1])}


def pixel_moments(
    images: UInt8Images,
) -> tuple[Float[np.ndarray, "pixel"], Float[np.ndarray, "pixel pixel"]]:
    """Mean and covariance (over n - 1) of the flattened pixels, in [-1, 1], in float64.

    Raises:
        InputError: There are fewer than two images.
    """
    count = len(images)
    if count < 2:
        raise InputError(
            f"frechet_pixels needs at least two images in each set, got {count}."
        )
    pixels = images.reshape(count, -1)  # [batch, pixel]
    mean = pixels.mean(axis=0, dtype=np.float64)
    cov = np.zeros((len(mean), len(mean)))
    for start in range(0, count, _BLOCK):
        centred = pixels[start : start + _BLOCK] - mean
        cov += centred.T @ centred
    return mean / 127.5 - 1.0, cov / (127.5**2 * (count - 1))


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
