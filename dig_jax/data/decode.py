"""Image files of all sorts to 8-bit grey or RGB, by rules that are stated here.

Grey among colour is repeated in all channels; palettes are looked up; transparent
pixels are laid over white; CMYK becomes RGB by Pillow's formula; of 16 bits the upper
eight are kept. Refused: animations, floats, 32-bit integers, Lab, and files of more
than 89 million pixels.
"""

import io
import struct
import warnings
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

# The formats of pixels alone: others run programs of their own, or draw.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG"),
    *("PPM", "QOI", "SGI", "TIFF", "WEBP"),
)
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 89_478_485
_ORIENTATION = 0x0112
# What Pillow's decoders were seen to raise for damaged files, and the like.
_UNDECODABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


class BadImageError(ValueError):
    """A file that is not an image that can be used, and why."""


class DecodedImage(NamedTuple):
    """An image of mode L or RGB, and what was done to make it one."""

    image: Image.Image
    notes: tuple[str, ...]


def decode_image(content: bytes, *, channels: int, upright: bool) -> DecodedImage:
    """The image in a file's bytes, in 8-bit grey or RGB.

    Args:
        content: A file of one of FORMATS, as far as this Pillow reads them.
        channels: 1 or 3.
        upright: Whether a camera's note of how it was held (Exif) is obeyed. Published
            numbers on ImageNet and CelebA ignore it.

    Raises:
        BadImageError: It cannot be decoded, or is of a sort that is refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about broken Exif notes
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_known_formats()) as image:
                return normalize_image(image, channels=channels, upright=upright)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImageError(f"it has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("it is not an image of a known format") from error
    except BadImageError:
        raise
    except _UNDECODABLE as error:
        raise BadImageError(f"it cannot be decoded ({error})") from error


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_image(content: bytes) -> bool:
    """Whether a file's bytes begin as those of an image of one of FORMATS."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_known_formats()):
                return True
    except Image.DecompressionBombError:
        return True  # its decoding says what is wrong
    except _UNDECODABLE:
        return False


def normalize_image(
    image: Image.Image, *, channels: int, upright: bool
) -> DecodedImage:
    """An image of Pillow in 8-bit grey or RGB, by the rules for files.

    Args:
        image: Any.
        channels: 1 or 3.
        upright: As for `decode_image`.

    Raises:
        BadImageError: It is of a sort that is refused.
    """
    # A camera's MPO is a JPEG with more views of the same behind it.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadImageError("it is animated or has several pages")
    notes = []
    if ";16" in _raw_mode(image):
        notes.append("16-bit")
    image.load()
    if upright and image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright")
    mode = image.mode
    if mode in ("I;16", "I;16B", "I;16L"):
        image, mode = _upper_bits(image), "L"
    if image.has_transparency_data:
        image, clear = _over_white(image)
        notes += ["transparent"] if clear else []
        mode = "L" if mode in ("LA", "La") else "RGB"
    elif mode in ("CMYK", "YCbCr"):
        notes.append(mode)
    elif mode in ("P", "1"):
        notes.append("palette" if mode == "P" else "1-bit")
    elif mode not in ("L", "RGB"):
        raise BadImageError(f"its pixels are of Pillow's mode {mode}")
    wanted = "RGB" if channels == 3 else "L"
    if mode == "L" and wanted == "RGB":
        notes.append("grey")
    elif mode != "L" and wanted == "L":
        notes.append("colour")
    return DecodedImage(image.convert(wanted), tuple(notes))


def _raw_mode(image: Image.Image) -> str:
    """How pixels lie in the file, before Pillow converts them; "" if it does not say.

    For 16-bit RGB, Pillow's mode is plain RGB.
    """
    if image.mode.startswith("I;16"):
        return image.mode
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if arguments and isinstance(arguments[0], str):
            return arguments[0]
    return ""


def _upper_bits(image: Image.Image) -> Image.Image:
    import numpy as np

    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def _over_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image over white, and whether that shines through anywhere."""
    image = image.convert("RGBA")
    clear = image.getchannel("A").getextrema() != (255, 255)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB"), clear
