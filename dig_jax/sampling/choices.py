"""Solver, times and guidance, as a configuration's section `sample` names them."""

import numpy as np
from jaxtyping import Float

from dig_jax.diffusion.guidance import Guidance
from dig_jax.interfaces import SDE, Solver
from dig_jax.options import SampleOptions
from dig_jax.solvers import create_solver, default_time_grid, solver_times


def choose_solver(options: SampleOptions, sde: SDE) -> Solver:
    """The solver that is named, for an SDE.

    Raises:
        InputError: Unknown, or it does not take these options.
    """
    own = (
        "order",
        "eta",
        "churn",
        "churn_interval",
        "churn_noise",
        "variance",
        "integrand",
        "inner_times",
    )
    given = {key: getattr(options, key) for key in own}
    given = {key: value for key, value in given.items() if value is not None}
    return create_solver(options.solver, sde, options.num_steps, **given)


def choose_times(options: SampleOptions, sde: SDE) -> Float[np.ndarray, "time"]:
    """The times between the solver's steps.

    Raises:
        InputError: Unknown grid, or times that do not work.
    """
    bounds = {"t_start": options.t_start, "t_end": options.t_end}
    grid = options.time_grid
    if grid == "auto":
        grid = default_time_grid(options.solver, sde, **bounds)
    return solver_times(grid, sde, choose_solver(options, sde), **bounds)


def choose_guidance(options: SampleOptions) -> Guidance:
    """How the network is guided.

    Raises:
        InputError: A scale, interval or power that cannot be.
    """
    return Guidance(
        scale=options.guidance,
        interval=options.guidance_interval,
        schedule=options.guidance_schedule,
        power=options.guidance_power,
        offset=options.guidance_offset,
        channels=options.guidance_channels,
    )
