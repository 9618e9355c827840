"""The loss of a learned variance: closed forms in float64, and what it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import digits_config
from scipy import stats

from dig_jax.diffusion import (
    Objective,
    VPDiscrete,
    denoising_loss,
    draw_times_and_noise,
    loss_of_draws,
)
from dig_jax.diffusion.variance import variance_bound
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment

LINEAR = {"betas": "linear", "beta_min": 1e-4, "beta_max": 0.02}
SDE = VPDiscrete("linear", 1e-4, 0.02)
BETAS = np.linspace(1e-4, 0.02, 1000)
STEPS = (1, 2, 3, 40, 500, 1000)
DIT = {"name": "dit", "width": 8, "depth": 1, "num_heads": 1, "patch_size": 4}
LEARNED = {
    "backbone": DIT | {"num_classes": 10, "learned_variance": True},
    "sde": {"name": "vp_discrete", **LINEAR},
    "objective": {"times": "steps", "variance_loss": 0.001},
}


def posterior(n, x0, x):
    """Mean and variance of x_(n-1) given x_n and x0, by Bayes' rule for Gaussians."""
    kept, before = 1 - BETAS[n - 1], np.prod(1 - BETAS[: n - 1])
    prior_mean, prior_variance = np.sqrt(before) * x0, 1 - before
    if n == 1:
        return x0, 0.0
    # x_n = sqrt(kept) x_(n-1) + noise of variance beta: precisions add up.
    precision = 1 / prior_variance + kept / BETAS[n - 1]
    said_by_x = np.sqrt(kept) * x / BETAS[n - 1]
    return (prior_mean / prior_variance + said_by_x) / precision, 1 / precision


def divergence(mean, variance, other_mean, other_variance):
    """KL(N(mean, variance) || N(other_mean, other_variance)), in nats."""
    ratio = variance / other_variance
    moved = (mean - other_mean) ** 2 / other_variance
    return 0.5 * (ratio - 1 - np.log(ratio) + moved)


def learned_variance(n, share):
    """exp(v log beta_n + (1 - v) log of the posterior's), Eq. 15."""
    _, least = posterior(max(n, 2), 0.0, 0.0)
    return np.exp(share * np.log(BETAS[n - 1]) + (1 - share) * np.log(least))


def drawn(rng, *shape):
    x0 = rng.integers(0, 256, shape) / 127.5 - 1
    estimate = x0 + 0.1 * rng.standard_normal(shape)
    return x0, estimate, rng.uniform(-1.2, 1.2, shape)


@pytest.mark.parametrize("n", STEPS)
def test_a_steps_bound_is_the_divergence_of_its_gaussians(n, rng):
    x0, estimate, said = drawn(rng, 2, 3, 3, 1)
    x0.flat[:2] = -1, 1  # the outermost bytes, whose bins have no end
    variance = learned_variance(n, (1 + said) / 2)
    if n == 1:
        # -log of the mass of a byte's bin; at n = 1 the step's mean is the estimate.
        # Not many deviations off, where no mass is left that float64 tells from 0.
        estimate = x0 + 0.03 * (estimate - x0)
        cdf = stats.norm(estimate, np.sqrt(variance)).cdf
        low = np.where(x0 == -1, 0, cdf(x0 - 1 / 255))
        nats = -np.log(np.where(x0 == 1, 1, cdf(x0 + 1 / 255)) - low)
    else:
        x = rng.standard_normal(x0.shape)
        mean, least = posterior(n, x0, x)
        nats = divergence(mean, least, posterior(n, estimate, x)[0], variance)
    expected = 1000 * nats.mean(axis=(1, 2, 3)) / np.log(2)
    x0, estimate, said = (jnp.float32(v) for v in (x0, estimate, said))
    found = variance_bound(SDE, x0, estimate, said, jnp.full(len(x0), n / 1000))
    # float32, whose exponents lose what they are large by.
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_the_masses_of_all_bytes_are_one(rng):
    x0 = jnp.arange(256, dtype=jnp.float32)[:, None, None, None] / 127.5 - 1
    estimate, said = jnp.full(x0.shape, 0.3), jnp.full(x0.shape, 0.7)
    bits = variance_bound(SDE, x0, estimate, said, jnp.full(256, 1 / 1000))
    assert jnp.sum(2.0 ** (-bits / 1000)) == pytest.approx(1, abs=1e-5)


def test_the_variance_that_is_learned_is_that_of_the_error(rng):
    """Of an estimate with the error e: least + (e times the weight of x0)^2."""
    n, share = 40, 0.4
    mean_per_error = posterior(n, 1.0, 0.0)[0] - posterior(n, 0.0, 0.0)[0]
    best, least = (learned_variance(n, v) for v in (share, 0.0))
    error = np.sqrt(best - least) / mean_per_error
    x0 = jnp.array([error, -error]).reshape(2, 1, 1, 1)

    def bound(said):
        said = jnp.full(x0.shape, said)
        return variance_bound(SDE, x0, 0 * x0, said, jnp.full(2, n / 1000)).mean()

    at = 2 * share - 1
    slope, around = jax.grad(bound)(at), jax.grad(bound)(at + 0.1)
    assert abs(slope) < 1e-3 * abs(around)
    assert bound(at) < min(bound(at - 0.05), bound(at + 0.05))


def test_the_prediction_learns_from_the_squared_error_alone(rng):
    x0 = jnp.float32(rng.uniform(-1, 1, (4, 2, 2, 1)))
    plain = Objective(times="steps")
    hybrid = Objective(times="steps", variance_loss=0.001)

    def outputs(params, x, t, label):
        return params["predicts"] * x, jnp.full(x.shape, params["says"])

    params = {"predicts": jnp.float32(0.4), "says": jnp.float32(0.1)}
    draws = draw_times_and_noise(jax.random.key(0), x0, SDE, hybrid)

    def whole(params):
        return loss_of_draws(outputs, params, SDE, draws, x0, None, objective=hybrid)

    def alone(params):
        def apply(params, x, t, label):
            return outputs(params, x, t, label)[0]

        return loss_of_draws(apply, params, SDE, draws, x0, None, objective=plain)

    (both, per_image), grads = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    (simple, _), expected = jax.jit(jax.value_and_grad(alone, has_aux=True))(params)
    assert grads["predicts"] == expected["predicts"]
    assert expected["says"] == 0
    assert grads["says"] != 0
    t, eps = draws
    alpha, sigma = (f(t)[:, None, None, None] for f in (SDE.alpha, SDE.sigma))
    x = alpha * x0 + sigma * eps
    estimate = (x - sigma * 0.4 * x) / alpha
    bound = variance_bound(SDE, x0, estimate, jnp.full(x.shape, 0.1), t)
    np.testing.assert_allclose(both, simple + 0.001 * bound.mean(), rtol=1e-5)
    np.testing.assert_allclose(per_image.loss.mean(), both, rtol=1e-5)


def experiment_with(tmp_path, **changes):
    config = digits_config(tmp_path)
    config.unlock()
    for section, values in {**LEARNED, **changes}.items():
        config[section] = values
    return create_experiment(config)


def test_a_network_with_the_loss_trains_its_channels_of_variance(tmp_path, rng):
    experiment = experiment_with(tmp_path)
    params = experiment.backbone.init(jax.random.key(0))
    with_variance = experiment.backbone.with_variance
    assert with_variance is not None
    x0 = jnp.float32(rng.uniform(-1, 1, (2, 8, 8, 1)))

    def loss(params):
        return denoising_loss(
            with_variance,
            params,
            experiment.sde,
            jax.random.key(1),
            x0,
            jnp.array([1, 2]),
            objective=experiment.objective,
        )[0]

    grads = jax.jit(jax.grad(loss))(params)["to_pixels"]["bias"]
    # Each pixel of a patch has its channel, and one of variance behind it.
    assert (grads.reshape(-1, 2) != 0).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": DIT | {"num_classes": 10}}, "backbone.learned_variance=True"),
        ({"sde": {"name": "vp_linear"}}, "set sde.name=vp_discrete"),
        ({"sde": LEARNED["sde"] | {"num_steps": 50}}, "sde.num_steps=1000, got"),
        ({"objective": {"variance_loss": 0.001}}, "times=steps, got uniform"),
        ({"objective": {"variance_loss": -1.0}}, "variance_loss"),
    ],
)
def test_what_cannot_learn_a_variance_is_refused(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as refused:
        experiment_with(tmp_path, **changes)
    assert "\n" not in str(refused.value)
