"""L_simple: what it is for networks whose error is known."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import create_sde, simple_loss
from dig_jax.diffusion.loss import sample_times
from dig_jax.diffusion.prediction import (
    Prediction,
    per_image,
    prediction_target,
)

SDE = create_sde("vp_linear")
PREDICTIONS = typing.get_args(Prediction)
X0 = jax.random.uniform(jax.random.key(7), (64, 4, 4, 1), minval=-1.0)


def predict_x0(params, x, t, label):
    """Some smooth network that estimates x0 from x and t."""
    return jnp.tanh(params * x + per_image(t))


def as_prediction(prediction, apply_x0):
    """The network of another target that says the same about x0."""

    def apply(params, x, t, label):
        x0 = apply_x0(params, x, t, label)
        alpha, sigma = per_image(SDE.alpha(t)), per_image(SDE.sigma(t))
        eps = (x - alpha * x0) / sigma
        return prediction_target(prediction, SDE, x0, eps, t)

    return apply


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss_space", PREDICTIONS)
def test_a_perfect_network_has_no_loss(prediction, loss_space):
    def perfect(params, x, t, label):
        return as_prediction(prediction, lambda *_: X0)(params, x, t, label)

    loss = simple_loss(
        perfect,
        None,
        SDE,
        jax.random.key(0),
        X0,
        None,
        prediction=prediction,
        loss_space=loss_space,
        times="stratified",
    )
    # Recovering eps divides a rounding of x by sigma: (1e-7 / sigma)^2 on average, and
    # the smallest sigma of 64 strata is above 0.01. In x0 it is (1e-7 / alpha)^2.
    assert loss < 1e-8


@pytest.mark.parametrize(
    ("prediction", "loss_space"), list(itertools.permutations(PREDICTIONS, 2))
)
def test_loss_in_another_space_is_the_converted_networks_loss(prediction, loss_space):
    def loss_of(own, space):
        return simple_loss(
            as_prediction(own, predict_x0),
            0.5,
            SDE,
            jax.random.key(3),
            X0,
            None,
            prediction=own,
            loss_space=space,
        )

    # The same times and noise on both sides; float32 with divisions by sigma and alpha.
    np.testing.assert_allclose(
        loss_of(prediction, loss_space), loss_of(loss_space, loss_space), rtol=1e-4
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradients_are_finite_at_the_ends_of_time(prediction, monkeypatch):
    ends = jnp.where(jnp.arange(len(X0)) % 2, 0.0, 1.0)
    monkeypatch.setattr("dig_jax.diffusion.loss.sample_times", lambda *_: ends)
    for loss_space in PREDICTIONS:
        grad = jax.grad(
            lambda params: simple_loss(
                predict_x0,
                params,
                SDE,
                jax.random.key(0),
                X0,
                None,
                prediction=prediction,
                loss_space=loss_space,  # noqa: B023 - called in this turn of the loop
            )
        )(0.5)
        assert jnp.isfinite(grad)


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_a_network_that_says_nothing_loses_the_noises_variance(times):
    x0 = jnp.zeros((512, 8, 8, 1))
    loss = simple_loss(
        lambda params, x, t, label: jnp.zeros_like(x),
        None,
        SDE,
        jax.random.key(0),
        x0,
        None,
        times=times,
    )
    # Four standard errors of a mean of squared normals, whose variance is 2.
    assert abs(loss - 1) < 4 * np.sqrt(2 / x0.size)


def test_stratified_times_have_one_in_each_stratum():
    batch = 48
    draw = jax.vmap(lambda key: sample_times(key, batch, "stratified"))
    times = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
    assert ((times >= 0) & (times < 1)).all()
    # Sorted, they are equally spaced to within float32's rounding of a time, 6e-8.
    gaps = np.diff(np.sort(times, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / batch, atol=2e-7)


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_each_images_time_is_uniform(times):
    num_batches, batch = 4000, 5
    draw = jax.vmap(lambda key: sample_times(key, batch, times))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(1), num_batches)))
    for column in drawn.T:
        counts, _ = np.histogram(column, bins=10, range=(0, 1))
        # Four standard errors of a binomial count with p = 1/10.
        assert np.abs(counts - num_batches / 10).max() < 4 * np.sqrt(
            num_batches * 0.1 * 0.9
        )


def test_stratified_times_estimate_the_same_loss_with_less_variance():
    def loss(key, times):
        return simple_loss(predict_x0, 0.5, SDE, key, X0, None, times=times)

    keys = jax.random.split(jax.random.key(2), 400)
    uniform, stratified = (
        np.asarray(jax.vmap(lambda key: loss(key, times))(keys))  # noqa: B023
        for times in ("uniform", "stratified")
    )
    standard_error = np.hypot(uniform.std(), stratified.std()) / np.sqrt(len(keys))
    assert abs(uniform.mean() - stratified.mean()) < 4 * standard_error
    assert stratified.var() < uniform.var()
