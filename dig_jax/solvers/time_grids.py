"""Where a sampler's steps end: time grids, made in float64 outside any trace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dig_jax.diffusion.discrete import VPDiscrete
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Solver, Table

Grid = Float[np.ndarray, "time"]


def uniform_times(num_steps: int, t_start: float = 1.0, t_end: float = 1e-3) -> Grid:
    """num_steps + 1 times from t_start down to t_end, equally spaced.

    Raises:
        InputError: No steps, or times that do not run down within [0, 1].
    """
    if num_steps < 1:
        raise InputError(f"A sampler needs at least 1 step, got {num_steps}.")
    if not 0 <= t_end < t_start <= 1:
        raise InputError(
            f"Sampling runs from t_start down to t_end within [0, 1], got "
            f"t_start={t_start}, t_end={t_end}."
        )
    return np.linspace(t_start, t_end, num_steps + 1)


def uniform(sde: SDE, num_steps: int, t_start: float, t_end: float) -> Grid:
    """Equal steps in t."""
    return uniform_times(num_steps, t_start, t_end)


def quadratic(sde: SDE, num_steps: int, t_start: float, t_end: float) -> Grid:
    """Equal steps in sqrt(t), closer near the data (arXiv:2010.02502, App. D.2)."""
    return np.linspace(t_start**0.5, t_end**0.5, num_steps + 1) ** 2


def logsnr(sde: SDE, num_steps: int, t_start: float, t_end: float) -> Grid:
    """Equal steps in logSNR (arXiv:2206.00927)."""
    start, end = _finite_logsnr("logsnr", sde, t_start, t_end)
    return _time_of_logsnr(sde, np.linspace(start, end, num_steps + 1))


def karras(
    sde: SDE, num_steps: int, t_start: float, t_end: float, rho: float = 7.0
) -> Grid:
    """Equal steps in (sigma / alpha)^(1 / rho) (arXiv:2206.00364, Eq. 5).

    The last time is t_end; the paper has one more step, from there to sigma = 0.
    """
    start, end = _finite_logsnr("karras", sde, t_start, t_end)
    first, last = np.exp(-start / (2 * rho)), np.exp(-end / (2 * rho))
    roots = np.linspace(first, last, num_steps + 1)
    return _time_of_logsnr(sde, -2 * rho * np.log(roots))


def respaced(sde: SDE, num_steps: int, t_start: float, t_end: float) -> Grid:
    """Whole steps of a discrete chain, from the last to the first, and then t_end.

    As evenly as whole steps can be, both ends included (ADM's respacing, which DiT and
    DiffiT sample with); to end in DDPM's last step, t_end is 0.
    """
    if not isinstance(sde, VPDiscrete):
        raise InputError(
            "The respaced grid needs the steps of a discrete chain: the sde "
            "vp_discrete, or another grid."
        )
    last = round(t_start * sde.num_steps)
    if not 1 <= num_steps <= last or t_end * sde.num_steps >= 1:
        raise InputError(
            f"The respaced grid takes at most {last} steps from t_start={t_start} to a "
            f"t_end below 1/{sde.num_steps}, got {num_steps} steps to t_end={t_end}."
        )
    stride = (last - 1) / max(num_steps - 1, 1)
    steps = 1 + np.round(stride * np.arange(num_steps)[::-1])
    return np.append(steps / sde.num_steps, t_end)


TIME_GRIDS: Table[Callable[..., Grid]] = Table(
    {
        "karras": karras,
        "logsnr": logsnr,
        "quadratic": quadratic,
        "respaced": respaced,
        "uniform": uniform,
    },
    "Times between a solver's steps by `config.sample.time_grid`: "
    "create_times(name, sde, num_steps, ...).",
)


def solver_times(
    grid: str, sde: SDE, solver: Solver, *, t_start: float = 1.0, t_end: float = 1e-3
) -> Grid:
    """The times between a solver's steps: `create_times`, as `Solver.even` asks for it.

    Raises:
        InputError: As for `create_times`.
    """
    bounds = {"t_start": t_start, "t_end": t_end}
    if not solver.even:
        return create_times(grid, sde, len(solver.evaluations), **bounds)
    ends = np.cumsum((0, *solver.evaluations))
    return create_times(grid, sde, int(ends[-1]), **bounds)[ends]


def create_times(
    grid: str, sde: SDE, num_steps: int, *, t_start: float = 1.0, t_end: float = 1e-3
) -> Grid:
    """num_steps + 1 times from exactly t_start down to exactly t_end.

    Also inside a trace these are NumPy, float64 whatever JAX's default is.

    Args:
        grid: Entry of TIME_GRIDS.
        sde: The forward process.
        num_steps: Steps, `len(solver.evaluations)`.
        t_start: Where sampling starts; 1 is noise.
        t_end: Where it ends, above 0 for most backbones.

    Raises:
        InputError: Unknown grid, no steps, times that do not run down within [0, 1],
            or that need a finite logSNR where it is infinite.
    """
    if grid not in TIME_GRIDS:
        raise InputError(
            f"Unknown time grid {grid!r}. Available: {', '.join(sorted(TIME_GRIDS))}."
        )
    uniform_times(num_steps, t_start, t_end)
    times = TIME_GRIDS[grid](sde, num_steps, t_start, t_end)
    times[0], times[-1] = t_start, t_end
    if not (np.diff(times.astype(np.float32)) < 0).all():
        raise InputError(
            f"The {grid} grid of {num_steps} steps from t_start={t_start} to t_end="
            f"{t_end} holds times that float32 cannot tell apart: take fewer steps, "
            f"or another grid."
        )
    return times


def has_finite_logsnr(sde: SDE, t: float) -> bool:
    """Whether x_t holds both image and noise."""
    return bool(np.isfinite(_logsnr(sde, t)))


def _logsnr(sde: SDE, t: float) -> float:
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return float(sde.logsnr(jnp.asarray(t, "float64")))


def _time_of_logsnr(sde: SDE, values: Float[np.ndarray, "time"]) -> Grid:
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.array(sde.time_of_logsnr(jnp.asarray(values, "float64")))


def _finite_logsnr(
    grid: str, sde: SDE, t_start: float, t_end: float
) -> tuple[float, float]:
    start, end = _logsnr(sde, t_start), _logsnr(sde, t_end)
    if not np.isfinite(start):
        raise InputError(
            f"The {grid} grid needs a finite logSNR, but it is infinite at t_start="
            f"{t_start}: start a little later, such as at t_start=0.999, or use the "
            f"grid uniform."
        )
    if not np.isfinite(end):
        raise InputError(
            f"The {grid} grid needs a finite logSNR, but it is infinite at t_end="
            f"{t_end}: end a little earlier, such as at t_end=0.001, or use the grid "
            f"uniform."
        )
    return start, end
