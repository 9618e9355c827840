"""DPM-Solver, singlestep, "fast" (arXiv:2206.00927, Alg. 1-2 and App. D)."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Index, Noise, Solver, Time
from dig_jax.solvers.exponential import half_logsnr
from dig_jax.solvers.probability_flow import noise_estimate


def singlestep_orders(order: int, num_evaluations: int) -> tuple[int, ...]:
    """Orders of steps that spend all evaluations: the highest, then what is left."""
    whole, rest = divmod(num_evaluations, order)
    if order == 3 and rest == 0:
        return (3,) * (whole - 1) + (2, 1)
    return (order,) * whole + ((rest,) if rest else ())


def dpm_solver(
    sde: SDE, num_steps: PositiveInt, *, order: Literal[1, 2, 3] = 3
) -> Solver:
    """DPM-Solver in noise prediction: an exponential integrator in log(alpha / sigma).

    A step of order k evaluates the denoiser k times. From or to a time of infinite
    logSNR, where a step has no inner points, it is of order 1, with one evaluation.

    Args:
        sde: The forward process.
        num_steps: Evaluations of the denoiser in all; the steps are about a third as
            many (order 3), one for each entry of `Solver.evaluations`.
        order: Highest order of a step.
    """
    orders = singlestep_orders(order, num_steps)
    used = sorted({1, *orders})
    branches = np.searchsorted(used, orders)

    def step(
        denoise: Denoiser, x: Images, index: Index, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, Index]:
        start = half_logsnr(sde, t)
        h = half_logsnr(sde, s) - start
        x0 = denoise(x, t)
        eps = noise_estimate(sde, x, x0, t)

        def shrink(u: Float[Array, ""]) -> Images:
            return sde.alpha(u) / sde.alpha(t) * x

        def inner(part: float) -> tuple[Float[Array, ""], Float[Array, ""]]:
            """Time and e^{part h} - 1 at that part of the step."""
            return sde.time_of_logsnr(2 * (start + part * h)), jnp.expm1(part * h)

        def eps_at(u: Images, time: Float[Array, ""]) -> Images:
            return noise_estimate(sde, u, denoise(u, time), time)

        def first() -> Images:
            return sde.alpha(s) * x0 + sde.sigma(s) * eps

        def second() -> Images:
            t1, growth = inner(1 / 2)
            u = shrink(t1) - sde.sigma(t1) * growth * eps
            return shrink(s) - sde.sigma(s) * jnp.expm1(h) * eps_at(u, t1)

        def third() -> Images:
            t1, growth1 = inner(1 / 3)
            t2, growth2 = inner(2 / 3)
            u = shrink(t1) - sde.sigma(t1) * growth1 * eps
            change = eps_at(u, t1) - eps
            curve = 2 * (growth2 / (2 / 3 * h) - 1)
            u = shrink(t2) - sde.sigma(t2) * (growth2 * eps + curve * change)
            change = eps_at(u, t2) - eps
            growth = jnp.expm1(h)
            curve = 3 / 2 * (growth / h - 1)
            return shrink(s) - sde.sigma(s) * (growth * eps + curve * change)

        branch = jnp.where(jnp.isfinite(h), jnp.asarray(branches)[index], 0)
        steps = {1: first, 2: second, 3: third}
        x = jax.lax.switch(branch, [steps[k] for k in used])
        return x, index + 1

    return Solver(
        init=lambda x: jnp.zeros((), jnp.int32), step=step, evaluations=orders
    )
