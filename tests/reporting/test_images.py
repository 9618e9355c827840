import os

import numpy as np
import pytest
from PIL import Image

from dig_jax.errors import InputError
from dig_jax.reporting.images import choose_scale, image_grid, write_png


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pad", "scale"), [(2, 1), (0, 3), (1, 2)])
def test_every_image_is_found_at_its_place_in_reading_order(channels, pad, scale):
    images = random_images(7, 4, 5, channels)
    grid = image_grid(images, columns=3, pad=pad, scale=scale)
    for index, image in enumerate(images):
        top = pad + (index // 3) * (4 * scale + pad)
        left = pad + (index % 3) * (5 * scale + pad)
        cell = grid[top : top + 4 * scale : scale, left : left + 5 * scale : scale]
        np.testing.assert_array_equal(cell, np.broadcast_to(image, (4, 5, 3)))


def test_everything_between_and_after_the_images_is_white():
    black = np.zeros((7, 4, 5, 1), np.uint8)
    grid = image_grid(black, columns=3, pad=2, scale=2)
    assert set(np.unique(grid)) == {0, 255}
    assert np.sum(grid == 0) == 7 * (4 * 2) * (5 * 2) * 3
    assert (grid[[0, 1, -2, -1]] == 255).all()
    assert (grid[:, [0, 1, -2, -1]] == 255).all()


def test_enlarging_repeats_pixels():
    images = random_images(1, 4, 5, 3)
    grid = image_grid(images, columns=1, pad=0, scale=3)
    expected = np.kron(images[0], np.ones((3, 3, 1), np.uint8))
    np.testing.assert_array_equal(grid, expected)


def test_fewer_images_than_columns_leave_no_empty_cells():
    images = random_images(2, 4, 5, 3)
    assert image_grid(images, columns=8, pad=1).shape == (4 + 2, 2 * 5 + 3, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_as_it_was_and_leaves_nothing_else(tmp_path, channels):
    image = random_images(6, 5, channels)
    path = tmp_path / "samples" / "step_10.png"
    write_png(path, np.zeros_like(image))
    write_png(path, image)
    read = np.asarray(Image.open(path)).reshape(image.shape)
    np.testing.assert_array_equal(read, image)
    assert os.listdir(path.parent) == ["step_10.png"]


def test_a_reader_of_the_old_png_keeps_reading_it(tmp_path):
    path = tmp_path / "samples.png"
    write_png(path, random_images(6, 5, 3))
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_png(path, random_images(60, 50, 3))
        assert reader.read() == before


def test_a_png_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def write_half(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    path = tmp_path / "samples.png"
    write_png(path, random_images(6, 5, 3))
    before = path.read_bytes()
    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(OSError, match="No space"):
        write_png(path, random_images(6, 5, 3))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["samples.png"]


def test_small_images_are_enlarged_and_large_ones_never_shrunk():
    assert choose_scale(8) == 8
    assert all(32 < size * choose_scale(size) <= 64 for size in range(1, 65))
    assert all(choose_scale(size) == 1 for size in range(33, 1025))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), {"columns": 2}, "at least one image"),
        (np.zeros((1, 4, 4, 4), np.uint8), {"columns": 2}, "1 or 3 channels, got 4"),
        (np.zeros((1, 4, 4, 3), np.uint8), {"columns": 0}, "columns=0"),
        (np.zeros((1, 4, 4, 3), np.uint8), {"columns": 1, "scale": 0}, "scale=0"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(images, options, message):
    with pytest.raises(InputError, match=message):
        image_grid(images, **options)
