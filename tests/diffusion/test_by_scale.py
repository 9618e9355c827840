"""Losses of networks that predict at several resolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import Objective, create_sde, denoising_loss
from dig_jax.diffusion.by_scale import coarse_target, scale_weight

SDE = create_sde("vp_linear")
X0 = jax.random.uniform(jax.random.key(7), (16, 8, 8, 2), minval=-1.0)
KEY = jax.random.key(3)


def coarse(x, factor):
    """Means over cells, pixel by pixel."""
    batch, rows, cols, rgb = x.shape
    out = np.empty((batch, rows // factor, cols // factor, rgb))
    for i in range(rows // factor):
        for j in range(cols // factor):
            cell = x[:, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
            out[:, i, j] = np.mean(cell, axis=(1, 2))
    return out


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_coarse_noise_keeps_unit_variance_or_is_averaged(factor):
    noise = jax.random.normal(KEY, (200, 8, 8, 2))
    unit = coarse_target(noise, factor, "unit_variance")
    # As many as 1,600 numbers and more: their variance is known to 4 per cent.
    assert jnp.var(unit) == pytest.approx(1.0, rel=0.12)
    mean = coarse(np.asarray(noise, np.float64), factor)
    np.testing.assert_allclose(unit, factor * mean, atol=1e-5)
    np.testing.assert_allclose(coarse_target(noise, factor, "average"), mean, atol=1e-5)


def test_finest_target_is_the_target_to_the_bit():
    np.testing.assert_array_equal(coarse_target(X0, 1, "unit_variance"), X0)


def three_scales(params, x, t, label):
    return tuple(params * x[:, ::factor, ::factor] for factor in (4, 2, 1))


def one_scale(factor):
    return lambda *args: three_scales(*args)[{4: 0, 2: 1, 1: 2}[factor]]


def loss_of(outputs, **options):
    return denoising_loss(
        outputs, 0.5, SDE, KEY, X0, None, objective=Objective(**options)
    )


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_loss_is_the_scales_by_their_area(prediction):
    """The paper's a_r = 4^-(R - r), each a mean over its own pixels and channels."""
    options = dict(prediction=prediction, loss_space=prediction)
    whole, each = loss_of(three_scales, **options)
    # Alone a coarse output has its weight too, as it says how coarse it is.
    parts = [loss_of(one_scale(factor), **options)[0] for factor in (4, 2, 1)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-6)
    np.testing.assert_allclose(whole, jnp.mean(each.loss), rtol=1e-6)
    assert [scale_weight(factor, "area") for factor in (4, 2, 1)] == [1 / 16, 1 / 4, 1]


def test_a_part_is_its_weighted_mean_squared_error():
    loss, each = loss_of(one_scale(2), times="stratified")
    time_key, noise_key = jax.random.split(KEY)
    t = (jax.random.uniform(time_key) + jnp.arange(16) / 16) % 1.0
    eps = jax.random.normal(noise_key, X0.shape)
    alpha, sigma = (f(t)[:, None, None, None] for f in (SDE.alpha, SDE.sigma))
    x = np.asarray(alpha * X0 + sigma * eps, np.float64)
    error = 0.5 * x[:, ::2, ::2] - 2 * coarse(np.asarray(eps, np.float64), 2)
    expected = 0.25 * np.mean(error**2, axis=(1, 2, 3))
    np.testing.assert_allclose(each.loss, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_the_finest_alone_counts_when_asked():
    whole, _ = loss_of(three_scales, scale_weights="finest")
    assert whole == loss_of(one_scale(1))[0]
