"""Between images and rows of patch pixels. NumPy and JAX arrays alike."""

from typing import Any, TypeVar

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
