"""Ancestral sampling: DDPM's posterior on any path (arXiv:2006.11239, Eq. 6-7)."""

import jax.numpy as jnp
from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time


def ancestral(sde: SDE, num_steps: PositiveInt) -> Solver:
    """Draw x_s from q(x_s | x_t, x0 = E[x0 | x_t]) for any alpha, sigma; weak order 1.

    With r = SNR(t) / SNR(s), its mean is r alpha_s / alpha_t x + (1 - r) alpha_s x0,
    its variance (1 - r) sigma_s^2 (arXiv:2107.00630, App. A).
    """

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        gap = sde.logsnr(s) - sde.logsnr(t)
        forgotten = -jnp.expm1(-gap)  # 1 - r
        # r alpha_s / alpha_t, which has a limit at alpha_t = 0
        kept = jnp.exp(-gap / 2) * sde.sigma(s) / sde.sigma(t)
        mean = kept * x + forgotten * sde.alpha(s) * denoise(x, t)
        return mean + jnp.sqrt(forgotten) * sde.sigma(s) * noise(), state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
