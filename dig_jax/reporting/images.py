"""Images as files: grids of them, and PNG."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, make_folder, written_whole

if TYPE_CHECKING:
    from PIL import ImageFont

_GAP = 255
_VISIBLE_SIZE = 64
_MARGIN, _MOST_LETTERS = 4, 24


def image_grid(
    images: UInt8[np.ndarray, "batch row col rgb"],
    columns: int,
    pad: int = 2,
    scale: int = 1,
) -> UInt8[np.ndarray, "height width 3"]:
    """Images side by side, row after row, with white gaps around each.

    Args:
        images: Grey or RGB; grey ones become RGB.
        columns: Images in a row; fewer images than that make one shorter row.
        pad: Width of the gaps, in pixels of the result.
        scale: How often each pixel is repeated in both directions.

    Raises:
        InputError: There are no images, or their channels are neither 1 nor 3, or a
            size cannot be.
    """
    count, rows, cols, channels = images.shape
    if count == 0:
        raise InputError("An image grid needs at least one image, got none.")
    _check_channels(channels)
    if columns < 1 or scale < 1 or pad < 0:
        raise InputError(
            "An image grid needs columns >= 1, scale >= 1 and pad >= 0, got "
            f"columns={columns}, scale={scale}, pad={pad}."
        )
    columns = min(columns, count)
    cell_rows, cell_cols = rows * scale + pad, cols * scale + pad
    height = math.ceil(count / columns) * cell_rows + pad
    grid = np.full((height, columns * cell_cols + pad, 3), _GAP, np.uint8)
    for index, image in enumerate(images):
        top = pad + index // columns * cell_rows
        left = pad + index % columns * cell_cols
        enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
        grid[top : top + rows * scale, left : left + cols * scale] = enlarged
    return grid


def name_rows(
    grid: UInt8[np.ndarray, "height width 3"],
    names: Sequence[str],
    images: UInt8[np.ndarray, "batch row col rgb"],
    scale: int,
    pad: int = 2,
) -> UInt8[np.ndarray, "height wider 3"]:
    """A grid of `image_grid` with names on white to the left of its first rows.

    Args:
        grid: The pixels to the right stay as they are.
        names: Long ones are cut off.
        images: What the grid is of, for the height of a row.
        scale: As the grid was made with.
        pad: Likewise.
    """
    from PIL import Image, ImageDraw

    height = images.shape[1] * scale
    font = _load_font(min(14, max(8, height)))
    names = [n if len(n) <= _MOST_LETTERS else f"{n[:_MOST_LETTERS]}..." for n in names]
    boxes = [font.getbbox(name) for name in names]
    width = math.ceil(max(box[2] for box in boxes)) + 2 * _MARGIN
    strip = Image.new("RGB", (width, grid.shape[0]), (_GAP,) * 3)
    draw = ImageDraw.Draw(strip)
    for row, name in enumerate(names):
        middle = pad + row * (height + pad) + height / 2
        draw.text((width - _MARGIN, middle), name, (0, 0, 0), font, anchor="rm")
    return np.concatenate([np.asarray(strip), grid], axis=1)


@cache
def _load_font(size: int) -> "ImageFont.FreeTypeFont":
    """The font of our plots: it has Latin, Greek, Cyrillic and more."""
    import matplotlib
    from PIL import ImageFont

    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(file, size)


def choose_scale(image_size: int) -> int:
    """Scale for `image_grid` that shows small images some 64 pixels wide."""
    if image_size < 1:
        raise InputError(f"An image needs a size of at least 1, got {image_size}.")
    return max(1, _VISIBLE_SIZE // image_size)


def write_png(path: AnyPath, image: UInt8[np.ndarray, "row col rgb"]) -> None:
    """Writes a grey or RGB image; a reader never sees half a file.

    Folders on the way are made.

    Raises:
        InputError: The channels are neither 1 nor 3.
    """
    from PIL import Image

    _check_channels(image.shape[-1])
    make_folder(path.parent)
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    with written_whole(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG")


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise InputError(f"An image needs 1 or 3 channels, got {channels}.")
