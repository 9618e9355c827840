"""Pictures inside of the page, each of few bytes."""

import base64
import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import readable
from dig_jax.reporting.images import choose_scale, image_grid

MAX_BYTES = 100_000
"""Of a picture; larger ones are written smaller."""
MAX_SIDE = 1200
"""Pixels of a picture that is written anew."""
MAX_FILE_BYTES = 2**26


@lru_cache(maxsize=64)
def _encode(path: AnyPath, changed: float, size: int) -> str:
    """A picture's address, made once as long as its file stays the same."""
    with readable(path, "is no picture that can be shown"):
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
        if len(data) <= MAX_BYTES and data.startswith(b"\x89PNG"):
            _check_whole(data)
            return _address("png", data)
        return _address("webp", _smaller(data))


def picture(path: AnyPath) -> str:
    """The address of a picture in a file, with the picture inside (data:).

    Raises:
        InputError: It cannot be read.
    """
    with readable(path, "is no picture that can be shown"):
        found = path.stat()
    changed = getattr(found, "st_mtime", None) or getattr(found, "mtime", 0)
    size = getattr(found, "st_size", None) or getattr(found, "length", 0)
    return _encode(path, float(changed), int(size))


def picture_of(images: UInt8[np.ndarray, "batch row col rgb"], columns: int) -> str:
    """The address of images in rows."""
    from PIL import Image

    grid = image_grid(images, columns, pad=1, scale=choose_scale(images.shape[1]))
    file = io.BytesIO()
    Image.fromarray(grid).save(file, format="PNG")
    data = file.getvalue()
    if len(data) > MAX_BYTES:
        return _address("webp", _smaller(data))
    return _address("png", data)


def _check_whole(data: bytes) -> None:
    """Raise what Pillow raises of a picture that is cut off or damaged."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        opened.verify()  # checksums; a picture cannot be read after it
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()


def _smaller(data: bytes) -> bytes:
    """A picture as WebP, of at most MAX_SIDE, and coarser until it is small."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        shown = opened.convert("RGB")
    shown.thumbnail((MAX_SIDE, MAX_SIDE))
    written = b""
    for quality in (85, 70, 50):
        file = io.BytesIO()
        shown.save(file, format="WEBP", quality=quality, method=3)
        written = file.getvalue()
        if len(written) <= MAX_BYTES:
            break
        shown.thumbnail((shown.width * 4 // 5, shown.height * 4 // 5))
    return written


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
