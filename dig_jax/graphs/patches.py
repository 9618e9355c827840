"""Which patches fit an image; between images and rows of patch pixels."""

import itertools
import math
from typing import Any, TypeVar

from dig_jax.errors import InputError

# NumPy's and JAX's arrays share the methods used here, but no type that says so.
ImageArray = TypeVar("ImageArray", bound=Any)


def image_to_patches(image: ImageArray, patch_size: int) -> ImageArray:
    """Cut [batch, row, col, rgb] into [batch, node, patch_size * patch_size * rgb].

    Patches run row by row, and so do the pixels in each patch.
    """
    batch, rows, cols, rgb = image.shape
    p = patch_size
    # [batch, patch row, row in patch, patch col, col in patch, rgb]
    cut = image.reshape(batch, rows // p, p, cols // p, p, rgb)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, p * p * rgb)


def patches_to_image(
    patches: ImageArray, image_size: tuple[int, int], patch_size: int
) -> ImageArray:
    """Undo `image_to_patches`."""
    rows, cols = image_size
    p = patch_size
    # [batch, patch row, patch col, row in patch, col in patch, rgb]
    cut = patches.reshape(len(patches), rows // p, cols // p, p, p, -1)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(patches), rows, cols, -1)


def check_patch_sizes(
    image_size: tuple[int, int], patch_sizes: tuple[int, ...]
) -> None:
    """Raise InputError unless the patch sizes tile the image and nest in each other."""
    rows, cols = image_size
    if not patch_sizes:
        raise InputError("patch_sizes must name at least one patch size, got none.")
    if rows < 1 or cols < 1:
        raise InputError(f"An image needs positive sides, got {rows}x{cols}.")
    divisors = [
        d for d in range(1, math.gcd(rows, cols) + 1) if rows % d + cols % d == 0
    ]
    for size in patch_sizes:
        if size not in divisors:
            raise InputError(
                f"{size}-pixel patches need an image size divisible by {size}, got "
                f"{rows}x{cols}. Patch sizes that fit: {', '.join(map(str, divisors))}."
            )
    for fine, coarse in itertools.pairwise(patch_sizes):
        if coarse <= fine:
            raise InputError(
                f"patch_sizes must be ascending, got {tuple(patch_sizes)}."
            )
        if coarse % fine:
            raise InputError(
                f"Each patch size must be a multiple of the one before, so that patches"
                f" cover whole patches; {coarse} is no multiple of {fine} in "
                f"{tuple(patch_sizes)}."
            )
