"""Patches against a loop over them."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.graphs import GridGraph, image_to_patches, patches_to_image

shapes = pytest.mark.parametrize(
    ("shape", "patch_size"),
    [((2, 8, 8, 3), 2), ((1, 6, 9, 1), 3), ((3, 4, 8, 2), 4), ((1, 2, 3, 3), 1)],
)


@shapes
def test_patches_run_row_by_row_and_so_do_their_pixels(rng, shape, patch_size):
    image = rng.normal(size=shape)
    p = patch_size
    expected = [
        image[:, row : row + p, col : col + p].reshape(shape[0], -1)
        for row, col in itertools.product(range(0, shape[1], p), range(0, shape[2], p))
    ]
    np.testing.assert_array_equal(image_to_patches(image, p), np.stack(expected, 1))


@shapes
def test_patches_make_the_image_again(rng, shape, patch_size):
    image = rng.normal(size=shape).astype(np.float32)
    for array in (image, jnp.asarray(image)):
        back = patches_to_image(
            image_to_patches(array, patch_size), shape[1:3], patch_size
        )
        assert type(back) is type(array)
        np.testing.assert_array_equal(back, image)


def test_patches_are_in_the_order_of_the_nodes():
    graph = GridGraph.create((4, 6), (2,))
    # Each pixel holds the number of the node that covers it.
    image = graph.grid(0).repeat(2, 0).repeat(2, 1)[None, :, :, None]
    patches = image_to_patches(image, 2)[0]
    np.testing.assert_array_equal(patches, np.arange(6)[:, None].repeat(4, 1))
