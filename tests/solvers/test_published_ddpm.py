"""DDIM and ancestral sampling beside their published algorithms, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_laws import solve
from published import (
    T_END,
    alpha,
    assert_same,
    chain,
    denoise,
    drawn,
    eps_model,
    start,
    x0_model,
)

from dig_jax.diffusion import create_sde
from dig_jax.diffusion.prediction import WithVariance
from dig_jax.errors import InputError
from dig_jax.solvers import create_solver, create_times


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_its_equation_12(eta, rng):
    times = np.linspace(1, T_END, 7)
    x = start(rng)
    noise = rng.standard_normal((6, *x.shape))
    expected = x
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        a, b = alpha(t) ** 2, alpha(s) ** 2  # the paper's alpha_t, alpha_{t-1}
        eps = eps_model(expected, t)
        new = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        x0 = (expected - np.sqrt(1 - a) * eps) / np.sqrt(a)
        expected = np.sqrt(b) * x0 + np.sqrt(1 - b - new**2) * eps + new * z
    assert_same(drawn("ddim", 6, x, noise, eta=eta), expected)


def test_ancestral_is_the_posterior_of_ddpm(rng):
    """Mean and variance of q(x_{t-1} | x_t, x0) (arXiv:2006.11239, Eq. 7)."""
    times = np.linspace(1, T_END, 7)
    x = start(rng)
    noise = rng.standard_normal((6, *x.shape))
    expected = x
    for t, s, z in zip(times[:-1], times[1:], noise, strict=True):
        bar, bar_before = alpha(t) ** 2, alpha(s) ** 2
        a, b = bar / bar_before, 1 - bar / bar_before  # alpha_t, beta_t
        mean = np.sqrt(bar_before) * b / (1 - bar) * x0_model(expected, t)
        mean += np.sqrt(a) * (1 - bar_before) / (1 - bar) * expected
        expected = mean + np.sqrt((1 - bar_before) / (1 - bar) * b) * z
    assert_same(drawn("ancestral", 6, x, noise), expected)


def said_of_variance(x, t, xp=jnp):
    """Also beyond [-1, 1], as a network may."""
    return 1.5 * xp.sin(2 * x + t)


@pytest.mark.parametrize("spacing", ["linear", "scaled_linear"])
def test_ancestral_with_learned_variance_is_that_of_adm(spacing, rng):
    """GaussianDiffusion with LEARNED_RANGE, respaced to 12 steps that count from 0."""
    kept = [round(i * 999 / 11) for i in range(12)]
    alpha_bar = chain(spacing, 1e-4, 0.02)[1][1:][kept]
    before = np.append(1.0, alpha_bar[:-1])
    betas = 1 - alpha_bar / before
    posterior = betas * (1 - before) / (1 - alpha_bar)
    least = np.log(np.append(posterior[1], posterior[1:]))
    x = start(rng)
    noise = rng.standard_normal((12, *x.shape))
    noise[-1] = 0
    expected = x
    for i, z in zip(range(11, -1, -1), noise, strict=True):
        t = (kept[i] + 1) / 1000
        share = (said_of_variance(expected, t, np) + 1) / 2
        log_variance = share * np.log(betas[i]) + (1 - share) * least[i]
        mean = (
            betas[i] * np.sqrt(before[i]) / (1 - alpha_bar[i]) * x0_model(expected, t)
        )
        mean += (
            (1 - before[i]) * np.sqrt(1 - betas[i]) / (1 - alpha_bar[i])
        ) * expected
        expected = mean + np.exp(log_variance / 2) * z
    with jax.enable_x64(True):
        sde = create_sde("vp_discrete", betas=spacing, beta_min=1e-4, beta_max=0.02)
        solver = create_solver("ancestral", sde, 12, variance="learned")
        times = create_times("respaced", sde, 12, t_end=0.0)
        both = WithVariance(lambda x, t: (denoise(x, t), said_of_variance(x, t)))
        got = solve(solver, both, times, x, noise)
    assert_same(got, expected)


def test_a_learned_variance_needs_a_network_that_learns_it(rng):
    sde = create_sde("vp_discrete")
    solver = create_solver("ancestral", sde, 2, variance="learned")
    with pytest.raises(InputError, match="learned_variance=True"):
        solve(solver, denoise, create_times("uniform", sde, 2), start(rng))
