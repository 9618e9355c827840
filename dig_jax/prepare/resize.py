"""Named ways from an image of any size to one of the size that is wanted.

A score means little without the way: FID on ImageNet-64 differs by points among them.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from dig_jax.data.decode import BadImageError

Pixels = UInt8[np.ndarray, "row col rgb"]
Size: TypeAlias = int | tuple[int, int]
"""The side of a square, or (rows, cols)."""


def adm_center_crop(image: Image.Image, size: Size) -> Pixels:
    """ADM's (arXiv:2105.05233, guided-diffusion): halve, bicubic, crop the centre.

    Halved by a box filter while the shorter side is at least twice the size, then the
    shorter side becomes the size by Pillow's bicubic filter, then the central square.
    For other shapes the same, by the side that is shorter in proportion.
    """
    rows, cols = _sides(size)
    while image.width >= 2 * cols and image.height >= 2 * rows:
        width, height = image.size
        image = image.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = max(cols / image.width, rows / image.height)
    width, height = (round(side * scale) for side in image.size)
    pixels = _to_array(image.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - rows) // 2, (width - cols) // 2
    return pixels[top : top + rows, left : left + cols]


def area(image: Image.Image, size: Size) -> Pixels:
    """The central part of that shape, each new pixel the exact mean of what it covers.

    Of a shape that is no square, to whole pixels of the original.
    """
    rows, cols = _sides(size)
    width, height = image.size
    if width * rows > height * cols:
        width = max(1, round(height * cols / rows))
    else:
        height = max(1, round(width * rows / cols))
    part = _to_array(_crop_center(image, height, width)).astype(np.float64)
    by_row, by_col = _area_weights(height, rows), _area_weights(width, cols)
    means = np.einsum("rp,pqc,sq->rsc", by_row, part, by_col, optimize=True)
    return np.rint(means).astype(np.uint8)


def box(image: Image.Image, size: Size) -> Pixels:
    """The whole image squeezed to that shape by a box filter (arXiv:1707.08819)."""
    rows, cols = _sides(size)
    return _to_array(image.resize((cols, rows), Image.Resampling.BOX))


def unchanged(image: Image.Image, size: Size) -> Pixels:
    """The image as it is.

    Raises:
        BadImageError: It has another size.
    """
    rows, cols = _sides(size)
    if image.size != (cols, rows):
        width, height = image.size
        raise BadImageError(
            f"it is {height}x{width} (rows, cols) and must be {rows}x{cols}, as no "
            f"transform was chosen"
        )
    return _to_array(image)


def celeba_square(
    image: Image.Image,
    size: Size,
    *,
    side: int,
    center: tuple[int, int] | None = None,
) -> Pixels:
    """A square of CelebA's aligned faces, resized by an antialiased bilinear filter.

    Args:
        image: 178 columns, 218 rows.
        size: Of the result.
        side: Of the square.
        center: Its column and row; without, that of the image.

    Raises:
        BadImageError: It is not an aligned face.
    """
    if image.size != (178, 218):
        raise BadImageError(f"it is {image.size[1]}x{image.size[0]} and not 218x178")
    if center is None:
        square = _crop_center(image, side, side)
    else:
        left, top = center[0] - side // 2, center[1] - side // 2
        square = image.crop((left, top, left + side, top + side))
    rows, cols = _sides(size)
    return _to_array(square.resize((cols, rows), Image.Resampling.BILINEAR))


# `box` is that of the published archives alone, whose classes have another order.
IMAGENET_TRANSFORMS = {"adm_center_crop": adm_center_crop, "area": area}
CELEBA_TRANSFORMS = {
    "center_140": partial(celeba_square, side=140),
    "center_148": partial(celeba_square, side=148),
    "center_89_121_128": partial(celeba_square, side=128, center=(89, 121)),
}
TRANSFORMS: Mapping[str, Callable[[Image.Image, Size], Pixels]] = {
    **IMAGENET_TRANSFORMS,
    **CELEBA_TRANSFORMS,
    "box": box,
    "none": unchanged,
}


@lru_cache(maxsize=64)
def _area_weights(old: int, new: int) -> Float64[np.ndarray, "new old"]:
    """How much of each old pixel, in [0, old], lies in each of `new` equal parts."""
    edges = np.arange(new + 1) * (old / new)
    pixel = np.arange(old)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(
        edges[:-1, None], pixel
    )
    weights = covered.clip(0) * (new / old)
    weights.setflags(write=False)
    return weights


def _sides(size: Size) -> tuple[int, int]:
    """(rows, cols)."""
    return (size, size) if isinstance(size, int) else size


def _crop_center(image: Image.Image, rows: int, cols: int) -> Image.Image:
    left, top = (image.width - cols) // 2, (image.height - rows) // 2
    return image.crop((left, top, left + cols, top + rows))


def _to_array(image: Image.Image) -> Pixels:
    pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]
