"""Pixels, their range, and flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.data.transforms import random_flip, to_uint8, to_unit_range
from dig_jax.errors import NonFiniteError

PIXELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_every_pixel_value_survives_the_round_trip(wrap):
    unit = wrap(to_unit_range)(PIXELS)
    assert unit.dtype == jnp.float32
    np.testing.assert_array_equal(to_uint8(unit), PIXELS)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_pixels_span_minus_one_to_one(wrap):
    unit = np.asarray(wrap(to_unit_range)(PIXELS), np.float64)
    # A product with a rounded 1/255, rounded: one unit in the last place of float32.
    np.testing.assert_allclose(unit, PIXELS / 127.5 - 1, rtol=2**-23, atol=0)
    assert unit[0] == -1
    assert unit[-1] == 1


def test_values_round_to_the_nearest_pixel_and_clip_outside():
    levels = np.array([-0.49, 0.49, 0.51, 100.4, 254.6, 255.4])
    pixels = to_uint8((levels / 127.5 - 1).astype(np.float32))
    np.testing.assert_array_equal(pixels, [0, 0, 1, 100, 255, 255])
    outside = np.array([-3.0, 3.0, 1e30, -1e30], np.float32)
    np.testing.assert_array_equal(to_uint8(outside), [0, 255, 255, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_values_that_are_not_finite_are_refused(bad, array):
    with pytest.raises(NonFiniteError, match="got 1 of 3"):
        to_uint8(array([0.0, bad, 1.0], dtype=np.float32))


def test_bfloat16_images_become_pixels():
    np.testing.assert_array_equal(
        to_uint8(jnp.array([-1, 0, 1], jnp.bfloat16)), [0, 128, 255]
    )


def test_each_image_is_flipped_as_a_whole_or_not_at_all():
    images = jax.random.normal(jax.random.key(0), (64, 3, 4, 3))
    flipped = np.asarray(random_flip(jax.random.key(1), images))
    mirrored = np.asarray(images)[:, :, ::-1]
    kept = (flipped == np.asarray(images)).all((1, 2, 3))
    turned = (flipped == mirrored).all((1, 2, 3))
    assert (kept ^ turned).all()
    assert kept.any()
    assert turned.any()


def test_half_of_all_images_are_flipped():
    images = jnp.tile(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1), (10_000, 1, 1, 1))
    flips = random_flip(jax.random.key(0), images)[:, 0, 0, 0]
    # Binomial with standard deviation 0.005: five of them.
    assert abs(float(flips.mean()) - 0.5) < 0.025
