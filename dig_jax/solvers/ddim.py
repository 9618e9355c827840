"""DDIM (arXiv:2010.02502)."""

from typing import Annotated

import jax.numpy as jnp
from pydantic import Field, PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time
from dig_jax.solvers.probability_flow import noise_estimate


def ddim(
    sde: SDE, num_steps: PositiveInt, *, eta: Annotated[float, Field(ge=0, le=1)] = 0.0
) -> Solver:
    """DDIM for any alpha, sigma: x_s = alpha_s x0 + sigma_s eps (Eq. 12); order 1.

    Args:
        sde: The forward process.
        num_steps: Steps, of one evaluation each.
        eta: Share of new noise: 0 is deterministic, 1 is ancestral sampling.
    """

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        x0 = denoise(x, t)
        eps = noise_estimate(sde, x, x0, t)
        new = jnp.square(eta) * -jnp.expm1(sde.logsnr(t) - sde.logsnr(s))
        x = sde.alpha(s) * x0 + sde.sigma(s) * jnp.sqrt(1 - new) * eps
        return x + sde.sigma(s) * jnp.sqrt(new) * noise() if eta else x, state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
