"""eps, x0 and v say the same about an image in three ways."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import create_sde, make_denoiser
from dig_jax.diffusion.prediction import (
    Prediction,
    error_scale,
    per_image,
    prediction_target,
    prediction_to_x0,
)

SDE = create_sde("vp_linear")
PREDICTIONS = typing.get_args(Prediction)


@pytest.fixture
def noised():
    """Clean images, their noise, times and noised images in float64."""
    with jax.enable_x64(True):
        x0_key, eps_key = jax.random.split(jax.random.key(0))
        t = jnp.asarray([1e-4, 1e-2, 0.1, 0.3, 0.6, 0.9, 1.0])
        x0 = jax.random.uniform(x0_key, (7, 4, 4, 3), minval=-1, dtype="float64")
        eps = jax.random.normal(eps_key, x0.shape, "float64")
        x = per_image(SDE.alpha(t)) * x0 + per_image(SDE.sigma(t)) * eps
        yield x0, eps, t, x


def test_v_is_the_derivative_along_the_circle(noised):
    """With alpha = cos(phi), sigma = sin(phi): v = dx/dphi (arXiv:2202.00512)."""
    x0, eps, t, _ = noised
    phi = jnp.arctan2(SDE.sigma(t), SDE.alpha(t))
    _, v = jax.jvp(
        lambda phi: per_image(jnp.cos(phi)) * x0 + per_image(jnp.sin(phi)) * eps,
        (phi,),
        (jnp.ones_like(phi),),
    )
    target = prediction_target("v", SDE, x0, eps, t)
    np.testing.assert_allclose(target, v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_gives_back_the_image(noised, prediction):
    x0, eps, t, x = noised
    target = prediction_target(prediction, SDE, x0, eps, t)
    estimate = prediction_to_x0(prediction, SDE, target, x, t)
    # Division by alpha(1) = 0.0066 costs eps two or three of float64's 16 digits.
    np.testing.assert_allclose(estimate, x0, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_error_moves_the_image_by_the_error_scale(noised, prediction):
    x0, eps, t, x = noised
    target = prediction_target(prediction, SDE, x0, eps, t)
    error = jax.random.normal(jax.random.key(1), x0.shape, "float64")
    moved = prediction_to_x0(prediction, SDE, target + error, x, t) - x0
    scale = per_image(error_scale(prediction, SDE, t))
    np.testing.assert_allclose(jnp.abs(moved), jnp.abs(scale * error), atol=1e-11)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_takes_one_time_or_one_for_each_image(prediction):
    def apply(params, x, t, label):
        return params * x + per_image(t) + per_image(label.astype(jnp.float32))

    denoise = make_denoiser(apply, 0.5, SDE, prediction, jnp.arange(3))
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    one, each = denoise(x, jnp.float32(0.3)), denoise(x, jnp.full(3, 0.3))
    np.testing.assert_array_equal(one, each)
    assert not np.allclose(one, denoise(x, jnp.full(3, 0.4)))
