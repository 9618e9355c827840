"""Every prediction says the same about an image in its own way."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import SDES, Objective, create_sde, make_denoiser, network_input
from dig_jax.diffusion.prediction import (
    error_scale,
    per_image,
    prediction_target,
    prediction_to_x0,
)
from dig_jax.options import Prediction

PREDICTIONS = typing.get_args(Prediction)
TIMES = [1e-4, 1e-2, 0.1, 0.3, 0.6, 0.9, 0.999]

on_every_path = pytest.mark.parametrize(
    ("prediction", "sde"),
    [
        pytest.param(prediction, create_sde(name), id=f"{prediction}-{name}")
        for prediction, name in itertools.product(PREDICTIONS, SDES)
    ],
)


class Noised(typing.NamedTuple):
    """Clean images, their noise, and times, in float64."""

    x0: jax.Array
    eps: jax.Array
    t: jax.Array

    def at(self, sde):
        alpha, sigma = per_image(sde.alpha(self.t)), per_image(sde.sigma(self.t))
        return alpha * self.x0 + sigma * self.eps


@pytest.fixture
def noised():
    with jax.enable_x64(True):
        x0_key, eps_key = jax.random.split(jax.random.key(0))
        x0 = jax.random.uniform(x0_key, (7, 4, 4, 3), minval=-1, dtype="float64")
        eps = jax.random.normal(eps_key, x0.shape, "float64")
        yield Noised(x0, eps, jnp.asarray(TIMES))


def test_v_is_the_derivative_along_the_circle(noised):
    """With alpha = cos(phi), sigma = sin(phi): v = dx/dphi (arXiv:2202.00512)."""
    sde = create_sde("vp_linear")
    x0, eps, t = noised
    phi = jnp.arctan2(sde.sigma(t), sde.alpha(t))
    _, v = jax.jvp(
        lambda phi: per_image(jnp.cos(phi)) * x0 + per_image(jnp.sin(phi)) * eps,
        (phi,),
        (jnp.ones_like(phi),),
    )
    target = prediction_target(Objective("v"), sde, x0, eps, t)
    np.testing.assert_allclose(target, v, rtol=1e-12, atol=1e-14)


def test_flow_is_the_derivative_along_the_straight_path(noised):
    """u = dx_t/dt (arXiv:2210.02747, Eq. 23, in our direction of time)."""
    sde = create_sde("flow")
    x0, eps, t = noised
    _, u = jax.jvp(lambda t: Noised(x0, eps, t).at(sde), (t,), (jnp.ones_like(t),))
    target = prediction_target(Objective("flow"), sde, x0, eps, t)
    np.testing.assert_allclose(target, u, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SDES)
def test_edm_is_the_papers_preconditioning(noised, name):
    """D(y; s) = c_skip y + c_out F(c_in y) of arXiv:2206.00364, Eq. 7 and Table 1."""
    sde, std = create_sde(name), 0.7
    objective = Objective("edm", sigma_data=std)
    x, t = noised.at(sde), noised.t
    output = jnp.sin(7 * noised.x0)
    alpha, sigma = (np.asarray(per_image(a(t))) for a in (sde.alpha, sde.sigma))
    y, s = np.asarray(x) / alpha, sigma / alpha
    c_skip = std**2 / (s**2 + std**2)
    c_out = s * std / np.sqrt(std**2 + s**2)
    c_in = 1 / np.sqrt(s**2 + std**2)
    shown = network_input(objective, sde, x, t)
    np.testing.assert_allclose(shown, c_in * y, rtol=1e-12)
    estimate = prediction_to_x0(objective, sde, output, x, t)
    np.testing.assert_allclose(estimate, c_skip * y + c_out * output, atol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_edm_input_and_target_have_unit_variance(noised, name):
    sde, std = create_sde(name), 0.7
    objective = Objective("edm", sigma_data=std)
    t, none = noised.t, jnp.zeros_like(noised.x0)
    data, noise = std * jnp.ones_like(none), jnp.ones_like(none)

    def both(x0, eps):
        x = Noised(x0, eps, t).at(sde)
        target = prediction_target(objective, sde, x0, eps, t)
        return jnp.stack([network_input(objective, sde, x, t), target])

    # Both are linear, and image and noise independent: their variances add up.
    variance = both(data, none) ** 2 + both(none, noise) ** 2
    np.testing.assert_allclose(variance, 1, rtol=1e-12)


@on_every_path
def test_a_perfect_prediction_gives_back_the_image(noised, prediction, sde):
    objective = Objective(prediction)
    x0, eps, t = noised
    target = prediction_target(objective, sde, x0, eps, t)
    estimate = prediction_to_x0(objective, sde, target, noised.at(sde), t)
    # Division by alpha = 0.001 costs eps three of float64's 16 digits.
    np.testing.assert_allclose(estimate, x0, atol=1e-12)


@on_every_path
def test_an_error_moves_the_image_by_the_error_scale(noised, prediction, sde):
    objective = Objective(prediction)
    x0, eps, t = noised
    target = prediction_target(objective, sde, x0, eps, t)
    error = jax.random.normal(jax.random.key(1), x0.shape, "float64")
    moved = prediction_to_x0(objective, sde, target + error, noised.at(sde), t) - x0
    scale = per_image(error_scale(prediction, objective, sde, t))
    np.testing.assert_allclose(jnp.abs(moved), jnp.abs(scale * error), atol=1e-11)


@on_every_path
def test_a_denoiser_is_finite_at_the_ends_of_time(prediction, sde):
    denoise = make_denoiser(lambda params, x, t, label: x, None, sde, prediction)
    x = sde.prior_std * jax.random.normal(jax.random.key(0), (2, 2, 2, 1))
    assert jnp.isfinite(denoise(x, jnp.asarray([0.0, 1.0]))).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_takes_one_time_or_one_for_each_image(prediction):
    def apply(params, x, t, label):
        return params * x + per_image(t) + per_image(label.astype(jnp.float32))

    sde = create_sde("vp_linear")
    denoise = make_denoiser(apply, 0.5, sde, prediction, jnp.arange(3))
    x = jax.random.normal(jax.random.key(0), (3, 2, 2, 1))
    one, each = denoise(x, jnp.float32(0.3)), denoise(x, jnp.full(3, 0.3))
    np.testing.assert_array_equal(one, each)
    assert not np.allclose(one, denoise(x, jnp.full(3, 0.4)))
