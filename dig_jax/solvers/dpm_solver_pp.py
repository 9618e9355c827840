"""DPM-Solver++, multistep, of the ODE and of the SDE (arXiv:2211.01095)."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from pydantic import Field, PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time
from dig_jax.solvers.exponential import (
    History,
    empty_history,
    exponential_moments,
    half_logsnr,
    interpolation_weights,
    multistep_orders,
)


def dpm_solver_pp(
    sde: SDE,
    num_steps: PositiveInt,
    *,
    order: Literal[1, 2, 3] = 2,
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0,
    lower_order_final: bool = True,
) -> Solver:
    """DPM-Solver++(1, 2M, 3M), and SDE-DPM-Solver++ with eta = 1.

    One evaluation a step. Order 1 is DDIM, for every eta. With noise the weak order is
    2 at most. 3M integrates the quadratic through three estimates exactly; the authors'
    code gives its second difference half that weight, and is of order 2.

    Args:
        sde: The forward process.
        num_steps: Steps, at least as many as the order.
        order: Highest order of a step; the first steps build it up.
        eta: Share of new noise: 0 solves the ODE, 1 the reverse SDE.
        lower_order_final: In fewer than 10 steps, let the order fall to 1 at the end,
            as the authors' code does.

    Raises:
        InputError: Fewer steps than the order.
    """
    lower = lower_order_final and num_steps < 10
    orders = multistep_orders("dpm_solver_pp", order, num_steps, lower)

    def step(
        denoise: Denoiser, x: Images, past: History, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, History]:
        start = half_logsnr(sde, t)
        h = half_logsnr(sde, s) - start
        # x keeps e^-decay of its noise; the SDE is an ODE with h + decay in h's place.
        decay = -jnp.log1p(jnp.square(eta) * jnp.expm1(-2 * h)) / 2
        moments = exponential_moments(h + decay, 3)
        nodes = [(half_logsnr(sde, u) - start) / h for u in past.times]
        weights_by_order = [
            lambda: jnp.zeros(2, h.dtype),
            # The published 2M; the exact weight is moments[1] / nodes[0].
            lambda: jnp.stack([moments[0] / 2 / nodes[0], jnp.zeros_like(h)]),
            lambda: jnp.stack(interpolation_weights(nodes, moments)),
        ][:order]
        branch = jnp.where(jnp.isfinite(h), jnp.array(orders)[past.index] - 1, 0)
        weights = jax.lax.switch(branch, weights_by_order)
        x0 = denoise(x, t)
        integral = moments[0] * x0
        for weight, earlier in zip(weights, past.estimates, strict=False):
            integral += weight * (earlier - x0)
        kept = sde.sigma(s) / sde.sigma(t) * jnp.exp(-decay)
        x = kept * x + sde.alpha(s) * integral
        if eta:
            x += sde.sigma(s) * jnp.sqrt(-jnp.expm1(-2 * decay)) * noise()
        return x, past.push(t, x0)

    return Solver(
        init=lambda x: empty_history(x, order - 1),
        step=step,
        evaluations=(1,) * num_steps,
    )
