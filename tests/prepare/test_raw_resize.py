"""Each way to a square of pixels, against float64 arithmetic of its own."""

import numpy as np
import pytest
from PIL import Image

from dig_jax.data.decode import BadImageError
from dig_jax.prepare.resize import CELEBA_TRANSFORMS, TRANSFORMS

SQUARES = ("adm_center_crop", "area", "box")


def box_kernel(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def bicubic_kernel(x):
    """Keys' cubic with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def triangle_kernel(x):
    return np.maximum(0, 1 - np.abs(x))


def resample_axis(pixels, new, kernel, axis):
    """A filter stretched by the scale, its weights normalized: antialiased."""
    old = pixels.shape[axis]
    scale = old / new
    centers = (np.arange(new) + 0.5) * scale
    places = (np.arange(old)[None] + 0.5 - centers[:, None]) / max(scale, 1)
    weights = kernel(places)
    weights /= weights.sum(1, keepdims=True)
    moved = np.tensordot(weights, np.moveaxis(pixels, axis, 0), 1)
    return np.moveaxis(moved, 0, axis)


def resample(pixels, rows, cols, kernel):
    """Columns first, rounded to 8 bits in between, as Pillow does."""
    pixels = resample_axis(pixels.astype(float), cols, kernel, 1)
    pixels = np.floor(pixels + 0.5).clip(0, 255)
    return np.floor(resample_axis(pixels, rows, kernel, 0) + 0.5).clip(0, 255)


def adm_reference(pixels, size):
    while min(pixels.shape[:2]) >= 2 * size:
        rows, cols = (side // 2 for side in pixels.shape[:2])
        pixels = resample(pixels, rows, cols, box_kernel)
    scale = size / min(pixels.shape[:2])
    rows, cols = (round(side * scale) for side in pixels.shape[:2])
    pixels = resample(pixels, rows, cols, bicubic_kernel)
    top, left = (rows - size) // 2, (cols - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(50, 71), (71, 50), (33, 33), (16, 16), (9, 12)])
def test_adm_center_crop_is_halving_bicubic_and_the_central_square(shape, rng):
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = TRANSFORMS["adm_center_crop"](Image.fromarray(pixels), 16)
    # Pillow's weights have 22 bits: sums next to a tie may round the other way.
    np.testing.assert_allclose(found, adm_reference(pixels, 16), atol=1)
    assert (found == adm_reference(pixels, 16)).mean() > 0.99


@pytest.mark.parametrize("shape", [(30, 50), (21, 12), (12, 12), (7, 9), (64, 64)])
def test_area_is_the_exact_mean_over_each_new_pixel(shape, rng):
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    side, new = min(shape), 12
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side].astype(float)
    # Each old pixel as new x new equal ones: then every area is of whole pixels.
    fine = square.repeat(new, 0).repeat(new, 1)
    means = fine.reshape(new, side, new, side, 3).mean((1, 3))
    found = TRANSFORMS["area"](Image.fromarray(pixels), new)
    # To nearest, and where that is a tie, either way.
    np.testing.assert_allclose(found, means, atol=0.5 + 1e-9)


def test_box_squeezes_the_whole_image(rng):
    pixels = rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)
    found = TRANSFORMS["box"](Image.fromarray(pixels), 8)
    means = pixels.reshape(8, 3, 8, 5, 3).mean((1, 3))
    np.testing.assert_allclose(found, means, atol=1)  # two roundings


@pytest.mark.parametrize("name", SQUARES)
@pytest.mark.parametrize("shape", [(13, 29), (64, 64), (5, 5), (200, 90)])
def test_a_plain_image_stays_plain_at_any_size(name, shape):
    pixels = np.full((*shape, 3), (17, 200, 3), np.uint8)
    found = TRANSFORMS[name](Image.fromarray(pixels), 16)
    np.testing.assert_array_equal(found, np.full((16, 16, 3), (17, 200, 3)))


@pytest.mark.parametrize("name", [*SQUARES, "none"])
def test_an_image_of_the_right_size_stays_as_it_is(name, rng):
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = TRANSFORMS[name](Image.fromarray(pixels), 16)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("name", SQUARES)
def test_grey_images_keep_their_one_channel(name, rng):
    pixels = rng.integers(0, 256, (20, 31), dtype=np.uint8)
    grey = TRANSFORMS[name](Image.fromarray(pixels), 8)
    color = TRANSFORMS[name](Image.fromarray(np.stack([pixels] * 3, -1)), 8)
    np.testing.assert_array_equal(grey, color[..., :1])


SQUARE_OF = {  # top, left, side
    "center_140": (39, 19, 140),
    "center_148": (35, 15, 148),
    "center_89_121_128": (121 - 64, 89 - 64, 128),
}


@pytest.mark.parametrize("name", CELEBA_TRANSFORMS)
def test_celeba_faces_are_cut_and_resized_by_a_triangle_filter(name, rng):
    pixels = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    top, left, side = SQUARE_OF[name]
    square = pixels[top : top + side, left : left + side]
    found = TRANSFORMS[name](Image.fromarray(pixels), 64)
    np.testing.assert_allclose(
        found,
        resample(square, 64, 64, triangle_kernel),
        atol=1,  # rounded twice
    )


@pytest.mark.parametrize("name", [*CELEBA_TRANSFORMS, "none"])
def test_images_of_another_size_are_refused(name):
    with pytest.raises(BadImageError, match="178x218"):
        TRANSFORMS[name](Image.new("RGB", (218, 178)), 64)
