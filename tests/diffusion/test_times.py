"""The times that a batch is noised at."""

import jax
import numpy as np
import pytest
from known_network import SDE
from scipy import stats

from dig_jax.diffusion import (
    SDES,
    Objective,
    create_sde,
)
from dig_jax.diffusion.loss import sample_times


def test_stratified_times_have_one_in_each_stratum():
    batch = 48
    objective = Objective(times="stratified")
    draw = jax.vmap(lambda key: sample_times(key, batch, SDE, objective))
    times = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
    assert ((times >= 0) & (times < 1)).all()
    # Sorted, they are equally spaced to within float32's rounding of a time, 6e-8.
    gaps = np.diff(np.sort(times, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / batch, atol=2e-7)


@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_each_images_time_is_uniform(times):
    num_batches, batch = 4000, 5
    draw = jax.vmap(lambda key: sample_times(key, batch, SDE, Objective(times=times)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(1), num_batches)))
    for column in drawn.T:
        counts, _ = np.histogram(column, bins=10, range=(0, 1))
        # Four standard errors of a binomial count with p = 1/10.
        assert np.abs(counts - num_batches / 10).max() < 4 * np.sqrt(
            num_batches * 0.1 * 0.9
        )


@pytest.mark.parametrize("name", SDES)
def test_log_normal_times_make_the_noise_log_normal(name):
    sde = create_sde(name)
    objective = Objective(times="log_normal", log_sigma_mean=-0.4, log_sigma_std=0.8)
    t = sample_times(jax.random.key(0), 4000, sde, objective)
    log_sigma = -np.asarray(sde.logsnr(t)) / 2
    # Kolmogorov-Smirnov: one key in a thousand fails a true law.
    assert stats.kstest(log_sigma, stats.norm(-0.4, 0.8).cdf).pvalue > 1e-3


def test_times_that_are_steps_are_each_as_frequent():
    t = np.asarray(
        sample_times(jax.random.key(0), 50_000, SDE, Objective(times="steps"))
    )
    steps, counts = np.unique(t, return_counts=True)
    np.testing.assert_allclose(steps, np.arange(1, 1001) / 1000, rtol=1e-6)
    # Chi square: one key in a thousand fails a true law.
    assert stats.chisquare(counts).pvalue > 1e-3


def test_logit_normal_times_are_what_they_say():
    objective = Objective(times="logit_normal")
    t = np.asarray(sample_times(jax.random.key(0), 4000, SDE, objective), np.float64)
    assert stats.kstest(np.log(t / (1 - t)), stats.norm.cdf).pvalue > 1e-3


def test_on_the_straight_path_logit_normal_is_log_normal():
    flow = create_sde("flow")
    log_normal = Objective(times="log_normal", log_sigma_mean=0.0, log_sigma_std=1.0)
    logit, log = (
        sample_times(jax.random.key(0), 100, flow, objective)
        for objective in (Objective(times="logit_normal"), log_normal)
    )
    np.testing.assert_allclose(logit, log, rtol=1e-6)


@pytest.mark.parametrize("mean", [-50.0, 50.0])
@pytest.mark.parametrize("name", SDES)
def test_noise_beyond_an_sde_is_taken_at_its_end(name, mean):
    objective = Objective(times="log_normal", log_sigma_mean=mean)
    t = sample_times(jax.random.key(0), 10, create_sde(name), objective)
    np.testing.assert_allclose(t, float(mean > 0), atol=1e-6)
