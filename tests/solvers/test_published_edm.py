"""EDM's samplers beside their published algorithms, in NumPy and float64."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_laws import solve
from published import (
    assert_same,
    denoise,
    start,
)

from dig_jax.diffusion import create_sde
from dig_jax.solvers import create_solver, create_times


def edm_sampler(x, sigmas, churn=0.0, interval=(0.0, np.inf), std=1.0, noise=None):
    """arXiv:2206.00364, Alg. 2; without churn, Alg. 1 with s = 1.

    The last step is Euler's and adds no noise, as where it ends at sigma = 0.
    """
    num_steps = len(sigmas) - 1
    for i, (a, b) in enumerate(pairwise(sigmas)):
        if noise is not None and interval[0] <= a <= interval[1] and i < num_steps - 1:
            raised = a * (1 + min(churn / num_steps, np.sqrt(2) - 1))
            x = x + np.sqrt(raised**2 - a**2) * std * noise[i]
            a = raised
        slope = (x - denoise(x, a, np)) / a
        end = x + (b - a) * slope
        if i < num_steps - 1:
            end_slope = (end - denoise(end, b, np)) / b
            end = x + (b - a) * (slope + end_slope) / 2
        x = end
    return x


def by_edm(name, num_steps, x, rho, noise=None, **options):
    """A solver on EDM's own schedule; returns the end and the schedule's sigmas."""
    with jax.enable_x64(True):
        sde = create_sde("edm", rho=rho)
        solver = create_solver(name, sde, num_steps, **options)
        times = create_times("uniform", sde, num_steps, t_end=0.0)
        end = solve(solver, lambda x, t: denoise(x, sde.sigma(t)), times, x, noise)
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    steps = np.arange(num_steps + 1) / num_steps
    return np.asarray(end), (high + steps * (low - high)) ** rho  # Eq. 5


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_heun_is_algorithm_1_of_edm(rho, rng):
    x = start(rng) * 80
    got, sigmas = by_edm("heun", 17, x, rho)
    assert_same(got, edm_sampler(x, sigmas))


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_ode_euler_is_eulers_method_in_sigma(rho, rng):
    x = start(rng) * 80
    got, sigmas = by_edm("ode_euler", 17, x, rho)
    for a, b in pairwise(sigmas):
        x = x + (b - a) * (x - denoise(x, a, np)) / a
    assert_same(got, x)


@pytest.mark.parametrize(
    ("churn", "interval", "std"),
    [(0.5, (0.05, 50.0), 1.003), (40.0, (0.05, 50.0), 1.0), (40.0, (0.0, 1e9), 1.007)],
)
def test_heun_with_churn_is_algorithm_2_of_edm(churn, interval, std, rng):
    x = start(rng) * 80
    noise = rng.standard_normal((17, *x.shape))
    options = {"churn": churn, "churn_interval": interval, "churn_noise": std}
    got, sigmas = by_edm("heun", 17, x, 7.0, noise, **options)
    assert_same(got, edm_sampler(x, sigmas, churn, interval, std, noise))


def test_heun_and_its_churn_see_only_the_ratio_of_noise_to_image(rng):
    """x / alpha goes the same way on every path between the same sigma / alpha."""
    ratios = np.geomspace(50.0, 0.02, 13)
    x, noise = start(rng), rng.standard_normal((12, 2, 3, 4, 1))
    ends = {}
    for name in ("vp_linear", "vp_cosine", "flow", "edm"):
        with jax.enable_x64(True):
            sde = create_sde(name)
            times = np.asarray(sde.time_of_logsnr(jnp.asarray(-2 * np.log(ratios))))
            first = float(sde.alpha(jnp.asarray(times[0])))
            last = float(sde.alpha(jnp.asarray(times[-1])))
            solver = create_solver("heun", sde, 12, churn=3.0)
            end = solve(
                solver,
                lambda x, t, sde=sde: denoise(
                    x / sde.alpha(t), jnp.exp(-sde.logsnr(t) / 2)
                ),
                times,
                50 * first * x,
                noise,
            )
            ends[name] = np.asarray(end) / last
    for end in ends.values():
        # Times are found by the inverse of logSNR, to some 1e-12.
        np.testing.assert_allclose(end, ends["edm"], rtol=1e-7, atol=1e-7)
