"""Denoising losses: what they are for networks whose error is known."""

import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dig_jax.diffusion import (
    SDES,
    Objective,
    create_sde,
    denoising_loss,
    drop_labels,
    loss_by_noise_level,
    noise_level_losses,
)
from dig_jax.diffusion.loss import sample_times
from dig_jax.diffusion.prediction import per_image, prediction_target
from dig_jax.errors import InputError
from dig_jax.options import LossSpace, Prediction

SDE = create_sde("vp_linear")
PREDICTIONS = typing.get_args(Prediction)
SPACES = typing.get_args(LossSpace)
X0 = jax.random.uniform(jax.random.key(7), (64, 4, 4, 1), minval=-1.0)


def predict_x0(params, x, t):
    """Some smooth network that estimates x0 from x and t."""
    return jnp.tanh(params * x + per_image(t))


def as_prediction(objective, apply_x0, sde=SDE):
    """The network of an objective that says this about x0."""

    def apply(params, x, t, label):
        alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
        if objective.prediction == "edm":  # it is shown a scaled image
            x = x * jnp.sqrt((alpha * objective.sigma_data) ** 2 + sigma**2)
        x0 = apply_x0(params, x, t)
        return prediction_target(objective, sde, x0, (x - alpha * x0) / sigma, t)

    return apply


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


def test_losses_by_noise_level_are_a_weighted_histogram(rng):
    t, loss = rng.uniform(size=(2, 200)).astype(np.float32)
    t[:2] = 0.0, 1.0
    sums, counts = loss_by_noise_level(jnp.asarray(loss), jnp.asarray(t))
    expected, _ = np.histogram(t, bins=10, range=(0, 1), weights=loss)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    np.testing.assert_array_equal(counts, np.histogram(t, bins=10, range=(0, 1))[0])


def test_a_loss_that_is_not_finite_stays_at_its_noise_level():
    loss, t = jnp.asarray([1.0, jnp.nan, 2.0]), jnp.asarray([0.1, 0.5, 0.9])
    sums, counts = loss_by_noise_level(loss, t, num_bins=3)
    np.testing.assert_array_equal(sums, [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(counts, 1)


def held_out(apply, objective, **options):
    key = jax.random.key(11)
    return noise_level_losses(
        apply, 0.5, SDE, key, X0, None, objective=objective, **options
    )


def test_held_out_losses_are_at_their_noise_levels():
    """A network that is wrong by t shows its time in its error."""
    losses = held_out(
        lambda params, x, t, label: X0 + per_image(t),
        Objective("x0"),
        num_bins=4,
        loss_spaces=("x0",),
    )
    t = np.sort(np.sqrt(losses["x0"]), axis=1)  # [bin, batch]
    stratum = np.arange(64) / 64
    for level, times in enumerate(t):
        assert ((times >= level / 4) & (times < (level + 1) / 4)).all()
        spread = 4 * times - level - stratum
        # One in each of 64 parts of the level, to within a root's rounding.
        assert (spread > -1e-5).all()
        assert (spread < 1 / 64 + 1e-5).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_held_out_losses_do_not_depend_on_how_a_network_says_it(prediction):
    own, x0 = Objective(prediction), Objective("x0")
    got = held_out(as_prediction(own, predict_x0), own)
    expected = held_out(as_prediction(x0, predict_x0), x0)
    for space in ("x0", "eps"):
        # float32, with divisions by sigma = 0.02 and alpha = 0.007 on the way.
        np.testing.assert_allclose(got[space], expected[space], rtol=1e-3, atol=1e-6)


def test_held_out_losses_are_the_same_under_jit():
    def losses(key):
        return noise_level_losses(
            lambda params, x, t, label: predict_x0(params, x, t),
            0.5,
            SDE,
            key,
            X0,
            None,
            objective=Objective("x0"),
        )

    key = jax.random.key(0)
    plain, jitted = losses(key), jax.jit(losses)(key)
    assert plain["eps"].shape == (10, 64)
    np.testing.assert_allclose(plain["eps"], jitted["eps"], rtol=1e-4)


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
