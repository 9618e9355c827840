"""Euler-Maruyama on the reverse SDE (arXiv:2011.13456, Eq. 6)."""

import jax.numpy as jnp
from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time


def euler_maruyama(sde: SDE, num_steps: PositiveInt) -> Solver:
    """dx = [f x - g^2 score] dt + g dw, backwards in time; weak order 1.

    The score is (alpha E[x0 | x] - x) / sigma^2. Where alpha = 0 and f and g are
    infinite (flow's t = 1), x_t holds nothing of x0, and the step is the ancestral one:
    x_s = alpha E[x0] + sigma z.
    """

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        x0, z = denoise(x, t), noise()
        score = (sde.alpha(t) * x0 - x) / jnp.square(sde.sigma(t))
        reverse_drift = sde.drift(t) * x - jnp.square(sde.diffusion(t)) * score
        x = x + (s - t) * reverse_drift
        x = x + jnp.sqrt(t - s) * sde.diffusion(t) * z
        from_noise = sde.alpha(s) * x0 + sde.sigma(s) * z
        return jnp.where(jnp.isfinite(sde.drift(t)), x, from_noise), state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
