import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.diffusion import create_sde
from dig_jax.solvers import create_solver


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
        solver = create_solver("euler_maruyama", gaussian.sde, 1)
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


def test_the_step_from_pure_noise_forgets_it(rng):
    """On the straight path x_1 is eps alone: x_s is alpha E[x0] + sigma z."""
    x, z = rng.standard_normal((2, 3, 4, 4, 1)).astype(np.float32)
    solver = create_solver("euler_maruyama", create_sde("flow"), 1)
    got, _ = solver.step(
        lambda x, t: jnp.full_like(x, 0.25),
        jnp.asarray(x),
        (),
        jnp.asarray(1.0),
        jnp.asarray(0.75),
        lambda index=0: jnp.asarray(z),
    )
    # Two products and a sum in float32.
    np.testing.assert_allclose(got, 0.25 * 0.25 + 0.75 * z, rtol=1e-6, atol=1e-6)
