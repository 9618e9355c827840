"""Euler-Maruyama on data whose exact denoiser is affine.

Then an end image is affine in its starting noise and in the noise of each step, so its
mean and variance follow from derivatives, with no sampling error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.samplers import create_solver, sample, uniform_times

T_END = 1e-3


def end_law(gaussian, times, mean, variance):
    """Mean and variance of a pixel at times[-1] that starts with these at times[0]."""
    solver = create_solver("euler_maruyama", gaussian.sde)
    num_steps = len(times) - 1
    last = jnp.arange(num_steps) == num_steps - 1

    def end(start, noises):
        def step(x, now):
            t, s, z = now
            x, _ = solver.step(gaussian.denoise, x, (), t, s, lambda index=0: z)
            return x, None

        noises = jnp.where(last, 0, noises)[:, None, None, None, None]
        steps = (jnp.asarray(times[:-1]), jnp.asarray(times[1:]), noises)
        x, _ = jax.lax.scan(step, jnp.reshape(start, (1, 1, 1, 1)), steps)
        return x.sum()

    value, slopes = jax.jit(jax.value_and_grad(end, argnums=(0, 1)))(
        jnp.asarray(mean), jnp.zeros(num_steps)
    )
    return value, variance * slopes[0] ** 2 + jnp.sum(slopes[1] ** 2)


def test_mean_and_variance_converge_at_weak_order_one(gaussian):
    num_steps = [200, 400, 800, 1600]
    with jax.enable_x64(True):
        start, stop = jnp.asarray(1.0), jnp.asarray(T_END)
        # From the exact law at t = 1, so that the steps are the only error.
        begin = gaussian.mean_at(start), gaussian.variance_at(start)
        exact = np.array([gaussian.mean_at(stop), gaussian.variance_at(stop)])
        errors = [
            np.abs(np.array(end_law(gaussian, uniform_times(n), *begin)) - exact)
            for n in num_steps
        ]
    for error in np.transpose(errors):
        order = -np.polyfit(np.log(num_steps), np.log(error), 1)[0]
        # The next term of the error's expansion bends the line by a few percent.
        assert order == pytest.approx(1, abs=0.1)


def test_a_step_is_the_equation_in_numpy(gaussian, rng):
    """x + (s - t) [f x - g^2 score] + g sqrt(t - s) z (arXiv:2011.13456, Eq. 6)."""
    t, s = 0.4, 0.35
    x, z = rng.standard_normal((2, 3, 4, 4, 1))
    beta = 0.1 + 19.9 * t
    log_alpha_squared = -(0.1 * t + 19.9 * t**2 / 2)
    variance = np.exp(log_alpha_squared) * 2.0**2 - np.expm1(log_alpha_squared)
    score = -(x - np.exp(log_alpha_squared / 2) * 0.5) / variance
    drift = -0.5 * beta * x - beta * score
    expected = x + (s - t) * drift + np.sqrt(beta * (t - s)) * z
    with jax.enable_x64(True):
        solver = create_solver("euler_maruyama", gaussian.sde)
        got, _ = solver.step(
            gaussian.denoise,
            jnp.asarray(x),
            (),
            jnp.asarray(t),
            jnp.asarray(s),
            lambda index=0: jnp.asarray(z),
        )
    # float64; the score divides by sigma^2, which the closed form does not.
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_drawn_pixels_have_the_law_of_the_steps(gaussian):
    times = uniform_times(100, t_end=T_END)
    keys = jax.random.split(jax.random.key(0), 2000)
    solver = create_solver("euler_maruyama", gaussian.sde)
    images = np.asarray(sample(gaussian.denoise, solver, times, keys, (4, 4, 1)))
    mean, variance = end_law(gaussian, times.astype(np.float32), 0.0, 1.0)
    # Four standard errors of the mean and of the variance of independent normals.
    tolerance = 4 / np.sqrt(images.size)
    assert abs(images.mean() - mean) < tolerance * np.sqrt(variance)
    assert abs(images.var() / variance - 1) < tolerance * np.sqrt(2)
