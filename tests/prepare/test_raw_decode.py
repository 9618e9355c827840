"""Image files of every sort become 8-bit grey or RGB by the stated rules."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dig_jax.data.decode import BadImageError, decode_image


def save(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def decode(content, channels=3, upright=False):
    image, notes = decode_image(content, channels=channels, upright=upright)
    return np.asarray(image), notes


def png(rows, cols, depth, color, data):
    """A PNG file, written by hand, for what Pillow does not write."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    header = struct.pack(">IIBBBBB", cols, rows, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_rgb_is_what_it_was(form, rng):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if form == "WEBP" else {}
    found, notes = decode(save(Image.fromarray(pixels), form, **options))
    np.testing.assert_array_equal(found, pixels)
    assert notes == ()


def test_grey_among_colour_is_repeated_and_counted(rng):
    grey = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    content = save(Image.fromarray(grey))
    found, notes = decode(content)
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))
    assert notes == ("grey",)
    found, notes = decode(content, channels=1)
    np.testing.assert_array_equal(found, grey)
    assert notes == ()


def test_colour_among_grey_becomes_its_luma_and_is_counted(rng):
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    found, notes = decode(save(Image.fromarray(pixels)), channels=1)
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # Rec. 601
    np.testing.assert_allclose(found, luma, atol=1)
    assert notes == ("colour",)


def test_a_palette_is_looked_up(rng):
    colors = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    indices = rng.integers(0, 4, (5, 5), dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colors.ravel().tolist())
    found, notes = decode(save(image))
    np.testing.assert_array_equal(found, colors[indices])
    assert notes == ("palette",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_over_white(mode, rng):
    pixels = rng.integers(0, 256, (6, 5, len(mode)), dtype=np.uint8)
    found, notes = decode(save(Image.fromarray(pixels, mode)))
    color, alpha = pixels[..., :-1].astype(float), pixels[..., -1:] / 255.0
    expected = np.broadcast_to(color * alpha + 255 * (1 - alpha), (6, 5, 3))
    np.testing.assert_allclose(found, expected, atol=1)  # it rounds once
    assert notes[0] == "transparent"


def test_cmyk_becomes_rgb_and_is_counted(rng):
    pixels = rng.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    found, notes = decode(save(Image.fromarray(pixels, "CMYK"), "TIFF"))
    inverse = 255.0 - pixels
    np.testing.assert_allclose(found, inverse[..., :3] * inverse[..., 3:] / 255, atol=1)
    assert notes == ("CMYK",)


def test_of_sixteen_bits_the_upper_eight_are_kept(rng):
    grey = rng.integers(0, 2**16, (4, 6), dtype=np.uint16)
    found, notes = decode(save(Image.fromarray(grey)), channels=1)
    np.testing.assert_array_equal(found, grey >> 8)
    assert notes == ("16-bit",)
    color = rng.integers(0, 2**16, (3, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in color)
    found, notes = decode(png(3, 4, 16, 2, rows))
    np.testing.assert_array_equal(found, color >> 8)
    assert notes == ("16-bit",)


def test_a_cameras_note_is_obeyed_only_if_asked_for(rng):
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: its top is the right side
    content = save(Image.fromarray(pixels), exif=exif)
    found, notes = decode(content)
    np.testing.assert_array_equal(found, pixels)
    found, notes = decode(content, upright=True)
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))
    assert notes == ("turned upright",)


FRAMES = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_and_several_pages_are_refused(form):
    content = save(FRAMES[0], form, save_all=True, append_images=FRAMES[1:])
    with pytest.raises(BadImageError, match="animated or has several pages"):
        decode(content)


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image.fromarray(np.zeros((2, 2), np.float32)), "F"),
        (Image.fromarray(np.zeros((2, 2), np.int32)), "I"),
        (Image.new("LAB", (2, 2)), "LAB"),
    ],
)
def test_floats_integers_and_lab_are_refused(image, mode):
    with pytest.raises(BadImageError, match=f"mode {mode}$"):
        decode(save(image, "TIFF"))


def test_an_image_of_too_many_pixels_is_refused_by_its_header():
    with pytest.raises(BadImageError, match="more than 89478485 pixels"):
        decode(png(10_000, 10_000, 8, 2, b""))
    with pytest.raises(BadImageError, match="more than 89478485 pixels"):
        decode(png(2**30, 2**30, 8, 2, b""))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damaged_files_are_refused(form, rng):
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = save(Image.fromarray(pixels), form)
    with pytest.raises(BadImageError):
        decode(content[: len(content) // 2])
    with pytest.raises(BadImageError, match="not an image"):
        decode(b"<html>404</html>")
    with pytest.raises(BadImageError):
        decode(b"")


@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "WEBP"])
def test_flipped_bytes_give_pixels_or_one_error(form, rng):
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    content = save(Image.fromarray(pixels), form)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        try:
            found, _ = decode(bytes(damaged))
        except BadImageError:
            continue
        assert found.dtype == np.uint8
        assert found.shape[-1] == 3
