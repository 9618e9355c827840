"""Denoising losses: what they are for networks whose error is known."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_network import PREDICTIONS, SDE, X0, as_prediction, predict_x0

from dig_jax.diffusion import (
    SDES,
    Objective,
    create_sde,
    denoising_loss,
    drop_labels,
)
from dig_jax.diffusion.prediction import per_image
from dig_jax.errors import InputError
from dig_jax.options import LossSpace

SPACES = typing.get_args(LossSpace)


def loss_of(apply, objective, key=3, params=0.5, x0=X0, sde=SDE):
    if isinstance(key, int):
        key = jax.random.key(key)
    return denoising_loss(apply, params, sde, key, x0, None, objective=objective)[0]


@pytest.mark.parametrize("times", ["uniform", "stratified"])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_runs_on_disk_go_on_with_the_draws_they_began_with(prediction, times):
    """The first version of this loss, written out."""

    def apply(params, x, t, label):
        return params * x + per_image(t)

    def first_version(key):
        time_key, noise_key = jax.random.split(key)
        if times == "uniform":
            t = jax.random.uniform(time_key, (64,))
        else:
            t = (jax.random.uniform(time_key) + jnp.arange(64) / 64) % 1.0
        eps = jax.random.normal(noise_key, X0.shape)
        alpha, sigma = per_image(SDE.alpha(t)), per_image(SDE.sigma(t))
        target = eps if prediction == "eps" else alpha * eps - sigma * X0
        return jnp.mean(jnp.square(apply(0.5, alpha * X0 + sigma * eps, t, 0) - target))

    objective = Objective(prediction, prediction, times)
    assert loss_of(apply, objective) == first_version(jax.random.key(3))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss_space", SPACES)
def test_a_perfect_network_has_no_loss(prediction, loss_space):
    objective = Objective(prediction, loss_space, "stratified")
    loss = loss_of(as_prediction(objective, lambda *_: X0), objective)
    # Recovering eps divides a rounding of x by sigma: (1e-7 / sigma)^2 on average, and
    # the smallest sigma of 64 strata is above 0.01. In x0 it is (1e-7 / alpha)^2.
    assert loss < 1e-8


@pytest.mark.parametrize(
    ("prediction", "loss_space"), list(itertools.permutations(PREDICTIONS, 2))
)
def test_loss_in_another_space_is_the_converted_networks_loss(prediction, loss_space):
    own, other = (Objective(p, loss_space) for p in (prediction, loss_space))
    np.testing.assert_allclose(
        loss_of(as_prediction(own, predict_x0), own),
        loss_of(as_prediction(other, predict_x0), other),
        rtol=1e-4,  # the same draws on both sides; float32 divided by sigma and alpha
    )


@pytest.mark.parametrize("name", SDES)
def test_gradients_are_finite_at_the_ends_of_time(name, monkeypatch):
    ends = jnp.asarray([0.0, 1.0])
    monkeypatch.setattr("dig_jax.diffusion.loss.sample_times", lambda *_: ends)
    sde = create_sde(name)
    for prediction, space in itertools.product(PREDICTIONS, SPACES):

        def loss(params):
            return loss_of(
                lambda params, x, t, label: predict_x0(params, x, t),
                Objective(prediction, space),  # noqa: B023 - called in this turn
                params=params,
                x0=X0[:2],
                sde=sde,
            )

        assert jnp.isfinite(jax.grad(loss)(0.5)), (prediction, space)


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_a_network_that_says_nothing_loses_the_noises_variance(times):
    x0 = jnp.zeros((512, 8, 8, 1))
    silent = Objective(times=times)
    loss = loss_of(lambda params, x, t, label: jnp.zeros_like(x), silent, x0=x0)
    # Four standard errors of a mean of squared normals, whose variance is 2.
    assert abs(loss - 1) < 4 * np.sqrt(2 / x0.size)


def draws_of(key, t, sde=SDE):
    """alpha, sigma and noise of a loss's batch, in NumPy float64."""
    eps = jax.random.normal(jax.random.split(jax.random.key(key))[1], X0.shape)
    with jax.enable_x64(True):
        t = jnp.asarray(t, jnp.float64)
        alpha, sigma = (np.asarray(per_image(a(t))) for a in (sde.alpha, sde.sigma))
    return alpha, sigma, np.asarray(eps, np.float64)


def test_min_snr_weighs_the_images_error_by_the_clipped_ratio():
    objective = Objective("x0", "min_snr", min_snr_gamma=3.0)

    def apply(params, x, t, label):
        return predict_x0(params, x, t)

    key = jax.random.key(3)
    loss, each = denoising_loss(apply, 0.5, SDE, key, X0, None, objective=objective)
    alpha, sigma, eps = draws_of(3, each.t)
    x, t = alpha * np.asarray(X0) + sigma * eps, np.asarray(each.t)[:, None, None, None]
    squared = (np.tanh(0.5 * x + t) - np.asarray(X0)) ** 2
    weight = np.minimum((alpha / sigma) ** 2, 3.0)
    assert 0.2 < np.mean(weight < 3) < 1  # both sides of the clip are seen
    np.testing.assert_allclose(loss, np.mean(weight * squared), rtol=1e-5)


@pytest.mark.parametrize("name", SDES)
def test_edm_loss_is_the_papers(name):
    """|D(x0 + n; s) - x0|^2 times (s^2 + d^2) / (s d)^2 (arXiv:2206.00364, Sec. 5)."""
    sde, std = create_sde(name), 0.6
    objective = Objective("edm", "edm", "log_normal", sigma_data=std)

    def apply(params, x, t, label):
        return jnp.tanh(params * x)

    key = jax.random.key(5)
    loss, each = denoising_loss(apply, 0.5, sde, key, X0, None, objective=objective)
    alpha, sigma, eps = draws_of(5, each.t, sde)
    s, x0 = sigma / alpha, np.asarray(X0, np.float64)
    noised, total = x0 + s * eps, s**2 + std**2
    output = np.tanh(0.5 * noised / np.sqrt(total))
    denoised = std**2 / total * noised + s * std / np.sqrt(total) * output
    weight = total / (s * std) ** 2
    expected = np.mean(weight * (denoised - x0) ** 2)
    # float32, with c_skip's x and x0 cancelling by 1 / s where s is 0.02.
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_stratified_times_estimate_the_same_loss_with_less_variance():
    def network(params, x, t, label):
        return predict_x0(params, x, t)

    keys = jax.random.split(jax.random.key(2), 400)
    uniform, stratified = (
        np.asarray(jax.vmap(lambda key: loss_of(network, objective, key))(keys))  # noqa: B023
        for objective in (Objective(), Objective(times="stratified"))
    )
    standard_error = np.hypot(uniform.std(), stratified.std()) / np.sqrt(len(keys))
    assert abs(uniform.mean() - stratified.mean()) < 4 * standard_error
    assert stratified.var() < uniform.var()


def test_losses_of_images_average_to_the_batchs():
    objective = Objective("x0", "v")
    loss, each = denoising_loss(
        lambda params, x, t, label: predict_x0(params, x, t),
        0.5,
        SDE,
        jax.random.key(0),
        X0,
        None,
        objective=objective,
    )
    np.testing.assert_allclose(loss, np.mean(each.loss), rtol=1e-6)


def test_dropped_labels_are_the_null_label_at_the_rate():
    label = jnp.arange(20_000) % 10
    kept = drop_labels(jax.random.key(0), label, 10, 0.1)
    dropped = kept == 10
    np.testing.assert_array_equal(kept[~dropped], label[~dropped])
    # Four standard errors of a binomial proportion.
    assert abs(dropped.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / label.size)


def test_no_label_is_dropped_at_rate_zero():
    label = jnp.arange(1000) % 10
    kept = drop_labels(jax.random.key(0), label, 10, 0.0)
    np.testing.assert_array_equal(kept, label)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_is_no_probability_below_one_is_refused(rate):
    with pytest.raises(InputError, match=rf"rate in \[0, 1\), got {rate}"):
        drop_labels(jax.random.key(0), jnp.zeros(3, jnp.int32), 10, rate)
