"""The arrays of a file of reference statistics, checked before they are read."""

from functools import partial

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.npz import Header, NpzFile
from dig_jax.interfaces import UInt8Images

MAX_DIM = 8192
MAX_FEATURE_BYTES, MAX_IMAGE_BYTES = 2**31, 2**34


def read_images(npz: NpzFile) -> UInt8Images:
    """The images of an ADM batch, uint8 [image, row, col, rgb]."""
    if "arr_0" not in npz:
        raise InputError(
            f"A batch of images is an array arr_0, got {npz.describe()} in {npz.place}."
        )
    return npz.read("arr_0", _check_pixels, max_bytes=MAX_IMAGE_BYTES, limit="of them")


def read_arrays(npz: NpzFile) -> dict[str, np.ndarray]:
    """The means, covariances, and features of one width, as many as there are."""
    arrays = {}
    for mean, cov in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if mean in npz:
            limit = f"{MAX_DIM} features"
            found = npz.read(mean, check_vector, max_bytes=8 * MAX_DIM, limit=limit)
            arrays[mean] = found
            arrays[cov] = npz.read(
                cov,
                partial(_check_matrix, len(found)),
                max_bytes=8 * MAX_DIM**2,
                limit=limit,
            )
    if "features" in npz and "provenance" in npz:
        arrays["features"] = npz.read(
            "features",
            partial(_check_features, len(arrays["mu"])),
            max_bytes=MAX_FEATURE_BYTES,
            limit="of the features of some images",
        )
    return arrays


def check_vector(header: Header) -> None:
    """Raise ValueError for what is no mean."""
    if len(header.shape) != 1 or header.dtype.kind != "f":
        raise ValueError("a mean is floating-point numbers [dim]")


def _check_matrix(dim: int, header: Header) -> None:
    if header.shape != (dim, dim) or header.dtype.kind != "f":
        raise ValueError(
            f"the covariance of a mean [{dim}] is floating-point numbers [{dim}, {dim}]"
        )


def _check_features(dim: int, header: Header) -> None:
    if header.shape[1:] != (dim,) or header.dtype != np.float32:
        raise ValueError(f"features are float32 [image, {dim}]")


def _check_pixels(header: Header) -> None:
    shape = header.shape
    if header.dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        raise ValueError("images are uint8 [image, row, col, rgb]")
