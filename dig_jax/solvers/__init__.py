"""Samplers: solvers of the reverse process, all run by one scan."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Solver, Table
from dig_jax.options.keys import call_with_section
from dig_jax.solvers.ancestral import ancestral
from dig_jax.solvers.ddim import ddim
from dig_jax.solvers.dpm_solver import dpm_solver
from dig_jax.solvers.dpm_solver_pp import dpm_solver_pp
from dig_jax.solvers.euler_maruyama import euler_maruyama
from dig_jax.solvers.heun import heun
from dig_jax.solvers.ode_euler import ode_euler
from dig_jax.solvers.sample import sample
from dig_jax.solvers.time_grids import (
    TIME_GRIDS,
    create_times,
    has_finite_logsnr,
    solver_times,
    uniform_times,
)
from dig_jax.solvers.unipc import unipc

SOLVERS: Table[Callable[..., Solver]] = Table(
    {
        "ancestral": ancestral,
        "ddim": ddim,
        "dpm_solver": dpm_solver,
        "dpm_solver_pp": dpm_solver_pp,
        "euler_maruyama": euler_maruyama,
        "heun": heun,
        "ode_euler": ode_euler,
        "unipc": unipc,
    },
    "Solvers by `config.sample.solver`. An entry makes a Solver from an SDE, a number "
    "of steps and its own options: create_solver(name, sde, num_steps, ...).",
)

# Solvers whose coefficients are exponentials of logSNR, and whose authors space its
# steps equally on small images; the others step in t.
_STEPS_IN_LOGSNR = ("dpm_solver", "dpm_solver_pp", "unipc")


def create_solver(name: str, sde: SDE, num_steps: int, **options: Any) -> Solver:
    """The solver of that name for an SDE and a number of steps.

    Args:
        name: Entry of SOLVERS.
        sde: The forward process that it inverts.
        num_steps: Steps; for dpm_solver the evaluations of the denoiser.
        **options: Keywords of that entry.

    Raises:
        InputError: Unknown name or option, or a value that does not work.
    """
    solver = partial(_find(name), sde)
    known = [key for key in inspect.signature(solver).parameters if key != "num_steps"]
    for option in options:
        if option not in known:
            raise InputError(
                f"The solver {name} takes no option {option!r}. Available: "
                f"{', '.join(known) or 'none'}."
            )
    return call_with_section("sample", solver, options, num_steps=num_steps)


def default_time_grid(
    name: str, sde: SDE, *, t_start: float = 1.0, t_end: float = 1e-3
) -> str:
    """The entry of TIME_GRIDS that suits a solver: equal steps in logSNR or in t.

    Equal steps in t also where logSNR is infinite at an end, such as flow's t = 1.

    Raises:
        InputError: Unknown solver.
    """
    _find(name)
    finite = all(has_finite_logsnr(sde, t) for t in (t_start, t_end))
    return "logsnr" if name in _STEPS_IN_LOGSNR and finite else "uniform"


def _find(name: str) -> Callable[..., Solver]:
    if name not in SOLVERS:
        raise InputError(
            f"Unknown solver {name!r}. Available: {', '.join(sorted(SOLVERS))}."
        )
    return SOLVERS[name]


__all__ = [
    "SOLVERS",
    "TIME_GRIDS",
    "create_solver",
    "create_times",
    "default_time_grid",
    "sample",
    "solver_times",
    "uniform_times",
]
