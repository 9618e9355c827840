"""Ancestral sampling: DDPM's posterior on any path (arXiv:2006.11239, Eq. 6-7)."""

from typing import Literal

import jax.numpy as jnp
from pydantic import PositiveInt

from dig_jax.errors import InputError
from dig_jax.interfaces import (
    SDE,
    Denoiser,
    Images,
    Noise,
    Solver,
    Time,
    VarianceDenoiser,
)

LEAST_SIGMA = 1e-12
"""Whose logarithm stands for that of no noise, in steps down to the data."""


def ancestral(
    sde: SDE,
    num_steps: PositiveInt,
    *,
    variance: Literal["posterior", "learned"] = "posterior",
) -> Solver:
    """Draw x_s from q(x_s | x_t, x0 = E[x0 | x_t]) for any alpha, sigma; weak order 1.

    With r = SNR(t) / SNR(s), its mean is r alpha_s / alpha_t x + (1 - r) alpha_s x0,
    its variance (1 - r) sigma_s^2 (arXiv:2107.00630, App. A).

    Args:
        sde: The forward process.
        num_steps: Steps, of one evaluation each.
        variance: posterior, or learned: between that and (1 - r) sigma_t^2, which is
            beta of the step, as the network says (arXiv:2102.09672, Eq. 15). That
            needs a `VarianceDenoiser`.
    """

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        gap = sde.logsnr(s) - sde.logsnr(t)
        forgotten = -jnp.expm1(-gap)  # 1 - r
        # r alpha_s / alpha_t, which has a limit at alpha_t = 0
        kept = jnp.exp(-gap / 2) * sde.sigma(s) / sde.sigma(t)
        if variance == "posterior":
            x0, std = denoise(x, t), sde.sigma(s)
        else:
            if not isinstance(denoise, VarianceDenoiser):
                raise InputError(
                    "The solver ancestral with variance=learned needs a network that "
                    "learns the variance: one with learned_variance=True."
                )
            x0, said = denoise.with_variance(x, t)
            share = (1 + said) / 2  # 0 for the least, 1 for the greatest
            low, high = (
                jnp.log(jnp.maximum(sde.sigma(u), LEAST_SIGMA)) for u in (s, t)
            )
            std = jnp.exp(share * high + (1 - share) * low)
        mean = kept * x + forgotten * sde.alpha(s) * x0
        return mean + jnp.sqrt(forgotten) * std * noise(), state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
