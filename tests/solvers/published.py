"""What published algorithms run on, in NumPy and float64.

On any denoiser, not an exact one: the algorithms are the same whatever it says.
"""

import jax
import jax.numpy as jnp
import numpy as np
from known_laws import solve

from dig_jax.diffusion import create_sde
from dig_jax.solvers import create_solver, create_times

T_END = 1e-3


def assert_same(got, expected):
    # The same formulas in two orders of operations, in float64; D is of order 1.
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def denoise(x, t, xp=jnp):
    return xp.tanh(x * (1 + t)) + 0.3 * xp.cos(3 * x - t)


def log_alpha(t):
    return -(0.1 * t + 19.9 * t**2 / 2) / 2


def alpha(t):
    return np.exp(log_alpha(t))


def sigma(t):
    return np.sqrt(-np.expm1(2 * log_alpha(t)))


def x0_model(x, t):
    return denoise(x, t, np)


def eps_model(x, t):
    return (x - alpha(t) * x0_model(x, t)) / sigma(t)


def start(rng):
    return rng.standard_normal((2, 3, 4, 1))


def drawn(name, num_steps, x, noise=None, grid="uniform", **options):
    with jax.enable_x64(True):
        sde = create_sde("vp_linear")
        solver = create_solver(name, sde, num_steps, **options)
        times = create_times(grid, sde, len(solver.evaluations), t_end=T_END)
        return np.asarray(solve(solver, denoise, times, x, noise))


def chain(spacing, low, high):
    """log alpha in t through the points n / 1000 of a discrete chain."""
    if spacing == "linear":
        betas = np.linspace(low, high, 1000)
    else:
        betas = np.linspace(np.sqrt(low), np.sqrt(high), 1000) ** 2
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
    points = np.arange(1001) / 1000
    return betas, alpha_bar, lambda t: np.interp(t, points, np.log(alpha_bar) / 2)
