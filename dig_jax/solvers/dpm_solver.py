"""DPM-Solver, singlestep, "fast" (arXiv:2206.00927, Alg. 1-2 and App. D).

And DPM-Solver++, singlestep (arXiv:2211.01095): the same with the data's estimate.
"""

from typing import Any, Literal

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
    sde: SDE,
    num_steps: PositiveInt,
    *,
    order: Literal[1, 2, 3] = 3,
    integrand: Literal["eps", "x0"] = "eps",
    inner_times: Literal["logsnr", "uniform"] = "logsnr",
) -> Solver:
    """DPM-Solver, an exponential integrator in lambda = log(alpha / sigma).

    A step of order k evaluates the denoiser k times. From or to a time of infinite
    logSNR, where a step has no inner points, it is of order 1, with one evaluation.

    Args:
        sde: The forward process.
        num_steps: Evaluations of the denoiser in all; the steps are about a third as
            many (order 3), one for each entry of `Solver.evaluations`.
        order: Highest order of a step.
        integrand: What a polynomial is put through: the estimates of the noise (eps;
            DPM-Solver), or those of the image (x0; DPM-Solver++, singlestep).
        inner_times: Where a step has its further evaluations: at equal parts of it in
            lambda (logsnr), or in t (uniform), and then a grid spaces the evaluations
            and not the steps. The latter with x0 is the code of U-ViT and DiMR for
            latents.
    """
    orders = singlestep_orders(order, num_steps)
    used = sorted({1, *orders})
    branches = np.searchsorted(used, orders)
    # With alpha and sigma exchanged and lambda's sign turned one form is the other's.
    of_noise = integrand == "eps"
    kept, grown = (sde.alpha, sde.sigma) if of_noise else (sde.sigma, sde.alpha)
    sign = 1 if of_noise else -1

    def step(
        denoise: Denoiser, x: Images, index: Index, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, Index]:
        start = half_logsnr(sde, t)
        width = half_logsnr(sde, s) - start
        h = sign * width
        x0 = denoise(x, t)
        eps = noise_estimate(sde, x, x0, t)
        at_start = eps if of_noise else x0

        def shrink(u: Float[Array, ""]) -> Images:
            return kept(u) / kept(t) * x

        def inner(index: int, of: int) -> tuple[Float[Array, ""], Any]:
            """Time of an inner point, and which part of the step in lambda it ends."""
            if inner_times == "logsnr":
                part = index / of
                return sde.time_of_logsnr(2 * (start + part * width)), part
            u = t + index / of * (s - t)
            return u, (half_logsnr(sde, u) - start) / width

        def change_at(u: Images, time: Float[Array, ""]) -> Images:
            estimate = denoise(u, time)
            if of_noise:
                estimate = noise_estimate(sde, u, estimate, time)
            return estimate - at_start

        def first() -> Images:
            return sde.alpha(s) * x0 + sde.sigma(s) * eps

        def second() -> Images:
            t1, r1 = inner(1, 2)
            u = shrink(t1) - grown(t1) * jnp.expm1(r1 * h) * at_start
            change = change_at(u, t1) / (2 * r1)
            return shrink(s) - grown(s) * jnp.expm1(h) * (at_start + change)

        def third() -> Images:
            (t1, r1), (t2, r2) = inner(1, 3), inner(2, 3)
            u = shrink(t1) - grown(t1) * jnp.expm1(r1 * h) * at_start
            growth = jnp.expm1(r2 * h)
            curve = r2 / r1 * (growth / (r2 * h) - 1) * change_at(u, t1)
            u = shrink(t2) - grown(t2) * (growth * at_start + curve)
            growth = jnp.expm1(h)
            curve = (growth / h - 1) / r2 * change_at(u, t2)
            return shrink(s) - grown(s) * (growth * at_start + curve)

        branch = jnp.where(jnp.isfinite(h), jnp.asarray(branches)[index], 0)
        steps = {1: first, 2: second, 3: third}
        x = jax.lax.switch(branch, [steps[k] for k in used])
        return x, index + 1

    return Solver(
        init=lambda x: jnp.zeros((), jnp.int32),
        step=step,
        evaluations=orders,
        even=inner_times == "uniform",
    )
