"""Euler on the probability-flow ODE, as EDM steps (arXiv:2206.00364, Sec. 3)."""

from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Solver
from dig_jax.solvers.ddim import ddim


def ode_euler(sde: SDE, num_steps: PositiveInt) -> Solver:
    """Euler's method in r = sigma / alpha on d(x / alpha) / dr = E[eps | x]; order 1.

    Times alpha that is x_s = alpha_s x0 + sigma_s eps, DDIM without new noise, which
    also holds where r is infinite.
    """
    return ddim(sde, num_steps)
