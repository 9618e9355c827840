"""Samplers: solvers of the reverse process, all run by one scan."""

from collections.abc import Callable
from typing import Any

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Solver
from dig_jax.samplers.euler_maruyama import euler_maruyama
from dig_jax.samplers.sample import sample, uniform_times

SOLVERS: dict[str, Callable[..., Solver]] = {"euler_maruyama": euler_maruyama}


def create_solver(name: str, sde: SDE, num_steps: int, **options: Any) -> Solver:
    """The solver of that name for an SDE and a number of steps.

    Raises:
        InputError: Unknown name.
    """
    if name not in SOLVERS:
        raise InputError(
            f"Unknown solver {name!r}. Available: {', '.join(sorted(SOLVERS))}."
        )
    return SOLVERS[name](sde, num_steps, **options)


__all__ = ["SOLVERS", "create_solver", "sample", "uniform_times"]
