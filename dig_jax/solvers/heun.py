"""Heun's method as EDM has it, with its churn (arXiv:2206.00364, Alg. 1 and 2)."""

import math
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool
from pydantic import Field, NonNegativeFloat, PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Index, Noise, Solver, Time
from dig_jax.solvers.probability_flow import noise_estimate

MAX_CHURN = math.sqrt(2) - 1
"""The most that a step may raise the noise level by, relative to it."""


def heun(
    sde: SDE,
    num_steps: PositiveInt,
    *,
    churn: NonNegativeFloat = 0.0,
    churn_interval: tuple[NonNegativeFloat, NonNegativeFloat] = (0.05, 50.0),
    churn_noise: Annotated[float, Field(gt=0)] = 1.0,
) -> Solver:
    """Heun's method in r = sigma / alpha on d(x / alpha) / dr = E[eps | x]; order 2.

    On the EDM schedule it is EDM's sampler; on others, the same sampler of the images
    x / alpha. Two evaluations a step. The last step is Euler's, as in EDM, so that it
    may end at sigma = 0: 2 num_steps - 1 evaluations. So is a step from alpha = 0,
    where r is infinite.

    Args:
        sde: The forward process.
        num_steps: Steps.
        churn: Total noise that is added on the way and taken away again (S_churn); 0
            for none, then equal noises end in equal images. The last step adds none.
        churn_interval: (least, greatest) r to do so at (S_tmin, S_tmax).
        churn_noise: Standard deviation of what is added (S_noise).
    """
    growth = min(churn / num_steps, MAX_CHURN)
    add_noise = partial(
        _add_noise, sde, growth=growth, interval=churn_interval, deviation=churn_noise
    )

    def step(
        denoise: Denoiser, x: Images, index: Index, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, Index]:
        is_last = index == num_steps - 1
        if growth:
            x, t = add_noise(x, t, noise, wanted=~is_last)
        x0 = denoise(x, t)
        eps = noise_estimate(sde, x, x0, t)
        euler = sde.alpha(s) * x0 + sde.sigma(s) * eps

        def trapezoid() -> Images:
            end_eps = noise_estimate(sde, euler, denoise(euler, s), s)
            # alpha_s times the step in r, which is infinite where alpha_t is 0.
            length = sde.sigma(s) - sde.alpha(s) * _noise_ratio(sde, t)
            half = jnp.where(sde.alpha(t) > 0, length / 2, 0)
            return euler + half * (end_eps - eps)

        return jax.lax.cond(is_last, lambda: euler, trapezoid), index + 1

    return Solver(
        init=lambda x: jnp.zeros((), jnp.int32),
        step=step,
        evaluations=(2,) * (num_steps - 1) + (1,),
    )


def _add_noise(
    sde: SDE,
    x: Images,
    t: Time,
    noise: Noise,
    *,
    wanted: Bool[Array, ""],
    growth: float,
    interval: tuple[float, float],
    deviation: float,
) -> tuple[Images, Time]:
    """Raise the noise level of x from t to that of the time that is returned.

    Args:
        sde: The forward process.
        x: Images at time t.
        t: Their time.
        noise: Standard normal, in the images' shape.
        wanted: Whether to do so at all.
        growth: How much greater sigma / alpha becomes, relative to itself.
        interval: (least, greatest) sigma / alpha to do so at.
        deviation: Standard deviation of what is added (S_noise).
    """
    ratio = _noise_ratio(sde, t)
    low, high = interval
    is_inside = (low <= ratio) & (ratio <= high) & wanted
    ratio = jnp.where(is_inside, ratio, 1.0)
    raised = ratio * (1 + growth)
    later = sde.time_of_logsnr(-2 * jnp.log(raised))
    added = deviation * jnp.sqrt(jnp.square(raised) - jnp.square(ratio)) * noise()
    noisier = sde.alpha(later) * (x / sde.alpha(t) + added)
    return jnp.where(is_inside, noisier, x), jnp.where(is_inside, later, t)


def _noise_ratio(sde: SDE, t: Time) -> Time:
    """sigma / alpha, where alpha is not 0."""
    alpha = sde.alpha(t)
    return sde.sigma(t) / jnp.where(alpha > 0, alpha, 1)
