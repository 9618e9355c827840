"""Solvers that add noise: the law of what they draw, against the exact law."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_laws import PATHS, Gaussian, Mixture, end_law, promises

from dig_jax.diffusion import create_sde
from dig_jax.diffusion.prediction import WithVariance
from dig_jax.solvers import create_solver, create_times, sample

# (name, options, weak order): all that are always random, and two that may be.
SOLVERS = [
    *((name, options, order) for name, options, order, weak in promises() if weak),
    ("ddim", {"eta": 0.5}, 1),
    ("dpm_solver_pp", {"order": 2, "eta": 1.0}, 2),
]


@pytest.mark.parametrize("path_name", PATHS)
@pytest.mark.parametrize(("name", "options", "order"), SOLVERS)
def test_mean_and_variance_converge_at_the_weak_order(name, options, order, path_name):
    path = PATHS[path_name]
    bounds = {"t_start": path.t_start, "t_end": path.t_end}
    num_steps = [96, 192]
    errors = []
    with jax.enable_x64(True):
        law = Gaussian(path.sde, mean=0.5, std=2.0)
        start, stop = jnp.asarray(path.t_start), jnp.asarray(path.t_end)
        exact = np.array([law.mean_at(stop), law.variance_at(stop)])
        # From the exact law at t_start, so that the steps are the only error.
        begin = float(law.mean_at(start)), float(law.variance_at(start))
        for n in num_steps:
            solver = create_solver(name, path.sde, n, **options)
            times = create_times(path.grid, path.sde, n, **bounds)
            got = end_law(solver, law.denoise, times, *begin)
            errors.append(np.abs(np.array(got) - exact))
    mean, variance = np.transpose(errors)
    fitted = np.log2(variance[0] / variance[1])
    # The next term of the error's expansion bends the line by some percent. No upper
    # bound: Euler-Maruyama's leading term nearly cancels where the drift is 0.
    assert fitted > order - 0.15
    # Solvers through data prediction carry the mean without any error.
    assert (mean < variance).all()


def test_few_steps_with_the_right_variance_draw_gaussians_exactly():
    """For Gaussian data x_s given x_t is Gaussian, between DDPM's two variances.

    Its mean is that of q(x_s | x_t, E[x0 | x_t]), its variance that of q and that of
    the mean (arXiv:2201.06503, Eq. 9): a network that says so needs no small steps.
    """
    sde = create_sde("vp_discrete")
    with jax.enable_x64(True):
        law = Gaussian(sde, mean=0.5, std=0.7)
        times = create_times("uniform", sde, 5, t_end=1e-3)
        t, s = jnp.asarray(times[:-1]), jnp.asarray(times[1:])
        forgotten = -jnp.expm1(sde.logsnr(t) - sde.logsnr(s))
        of_x0 = (sde.sigma(t) * law.std) ** 2 / law.variance_at(t)
        right = forgotten * sde.sigma(s) ** 2 + (forgotten * sde.alpha(s)) ** 2 * of_x0
        least, most = (jnp.log(forgotten * sde.sigma(u) ** 2) for u in (s, t))
        said = 2 * (jnp.log(right) - least) / (most - least) - 1
        assert (jnp.abs(said) < 1).all()

        def both(x, now):
            return law.denoise(x, now), jnp.full_like(x, said[jnp.argmin(abs(t - now))])

        begin = float(law.mean_at(t[0])), float(law.variance_at(t[0]))
        solver = create_solver("ancestral", sde, 5, variance="learned")
        got = end_law(solver, WithVariance(both), times, *begin)
        # float64; the posterior's variance alone is wrong by a third of it here.
        np.testing.assert_allclose(
            got, [law.mean_at(s[-1]), law.variance_at(s[-1])], rtol=1e-10
        )
        plain = create_solver("ancestral", sde, 5)
        assert end_law(plain, law.denoise, times, *begin)[1] < 0.9 * got[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("euler_maruyama", {}),
        ("ancestral", {}),
        ("dpm_solver_pp", {"eta": 1.0}),
    ],
)
def test_drawn_pixels_have_the_law_of_a_mixture(name, options):
    sde, num_steps = create_sde("vp_linear"), 200
    weight, mean, std = [0.6, 0.4], [-0.5, 0.7], [0.2, 0.1]
    law = Mixture(*(np.array([values]) for values in (weight, mean, std)))
    solver = create_solver(name, sde, num_steps, **options)
    times = create_times("quadratic", sde, num_steps)
    keys = jax.random.split(jax.random.key(0), 1000)
    denoise = law.denoiser(sde)
    pixels = np.asarray(sample(denoise, solver, times, keys, (1, 16, 1), sde=sde))
    for bound in (-0.8, -0.5, -0.2, 0.1, 0.6, 0.7, 0.8):
        exact = sum(
            w * (1 + math.erf((bound - m) / s / math.sqrt(2))) / 2
            for w, m, s in zip(weight, mean, std, strict=True)
        )
        standard_error = math.sqrt(exact * (1 - exact) / pixels.size)
        # Four standard errors, and 0.01 for the steps: sigma is 0.01 at the end, and
        # the solvers of weak order 1 err by a few percent of a component's variance.
        assert (pixels < bound).mean() == pytest.approx(
            exact, abs=4 * standard_error + 0.01
        )
