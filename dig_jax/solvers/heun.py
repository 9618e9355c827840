"""Heun's method on the probability-flow ODE (arXiv:2206.00364, Alg. 1)."""

import jax
import jax.numpy as jnp
from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Index, Noise, Solver, Time
from dig_jax.solvers.probability_flow import velocity


def heun(sde: SDE, num_steps: PositiveInt) -> Solver:
    """Heun's method in t on dx/dt = alpha' D + sigma' E[eps | x]; order 2.

    Two evaluations a step. The last step is Euler's, as in EDM, so that it may end at
    sigma = 0: 2 num_steps - 1 evaluations.
    """

    def step(
        denoise: Denoiser, x: Images, index: Index, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, Index]:
        slope = velocity(sde, x, denoise(x, t), t)
        euler = x + (s - t) * slope

        def trapezoid() -> Images:
            end_slope = velocity(sde, euler, denoise(euler, s), s)
            return x + (s - t) * (slope + end_slope) / 2

        is_last = index == num_steps - 1
        return jax.lax.cond(is_last, lambda: euler, trapezoid), index + 1

    return Solver(
        init=lambda x: jnp.zeros((), jnp.int32),
        step=step,
        evaluations=(2,) * (num_steps - 1) + (1,),
    )
