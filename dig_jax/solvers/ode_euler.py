"""Euler on the probability-flow ODE."""

from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time
from dig_jax.solvers.probability_flow import velocity


def ode_euler(sde: SDE, num_steps: PositiveInt) -> Solver:
    """Euler's method in t on dx/dt = alpha' D + sigma' E[eps | x]; order 1."""

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        return x + (s - t) * velocity(sde, x, denoise(x, t), t), state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
