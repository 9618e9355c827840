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

    def step(
        denoise: Denoiser, x: Images, index: Index, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, Index]:
        one = _Step(sde, denoise, x, t, s, integrand == "eps", inner_times == "uniform")
        branch = jnp.where(jnp.isfinite(one.h), jnp.asarray(branches)[index], 0)
        steps = {1: one.first, 2: one.second, 3: one.third}
        x = jax.lax.switch(branch, [steps[k] for k in used])
        return x, index + 1

    return Solver(
        init=lambda x: jnp.zeros((), jnp.int32),
        step=step,
        evaluations=orders,
        even=inner_times == "uniform",
    )


class _Step:
    """A step from t to s, by each order.

    With alpha and sigma exchanged and lambda's sign turned, the form of the noise is
    that of the image.
    """

    def __init__(
        self,
        sde: SDE,
        denoise: Denoiser,
        x: Images,
        t: Time,
        s: Time,
        of_noise: bool,
        inner_in_t: bool,
    ) -> None:
        self._sde, self._denoise, self._x, self._t, self._s = sde, denoise, x, t, s
        self._of_noise, self._inner_in_t = of_noise, inner_in_t
        kept_grown = (sde.alpha, sde.sigma) if of_noise else (sde.sigma, sde.alpha)
        self._kept, self._grown = kept_grown
        self._start = half_logsnr(sde, t)
        self._width = half_logsnr(sde, s) - self._start
        self.h = self._width if of_noise else -self._width
        self._x0 = denoise(x, t)
        self._eps = noise_estimate(sde, x, self._x0, t)
        self._at_start = self._eps if of_noise else self._x0

    def first(self) -> Images:
        """Order 1, exact where the estimates are constant."""
        return (
            self._sde.alpha(self._s) * self._x0 + self._sde.sigma(self._s) * self._eps
        )

    def second(self) -> Images:
        """Order 2, with one inner point."""
        s, at_start = self._s, self._at_start
        t1, r1 = self._inner(1, 2)
        u = self._shrink(t1) - self._grown(t1) * jnp.expm1(r1 * self.h) * at_start
        change = self._change_at(u, t1) / (2 * r1)
        growth = jnp.expm1(self.h)
        return self._shrink(s) - self._grown(s) * growth * (at_start + change)

    def third(self) -> Images:
        """Order 3, with two inner points."""
        h, s, at_start, grown = self.h, self._s, self._at_start, self._grown
        (t1, r1), (t2, r2) = self._inner(1, 3), self._inner(2, 3)
        u = self._shrink(t1) - grown(t1) * jnp.expm1(r1 * h) * at_start
        growth = jnp.expm1(r2 * h)
        curve = r2 / r1 * (growth / (r2 * h) - 1) * self._change_at(u, t1)
        u = self._shrink(t2) - grown(t2) * (growth * at_start + curve)
        growth = jnp.expm1(h)
        curve = (growth / h - 1) / r2 * self._change_at(u, t2)
        return self._shrink(s) - grown(s) * (growth * at_start + curve)

    def _shrink(self, u: Float[Array, ""]) -> Images:
        return self._kept(u) / self._kept(self._t) * self._x

    def _inner(self, index: int, of: int) -> tuple[Float[Array, ""], Any]:
        """Time of an inner point, and which part of the step in lambda it ends."""
        if not self._inner_in_t:
            part = index / of
            return self._sde.time_of_logsnr(
                2 * (self._start + part * self._width)
            ), part
        u = self._t + index / of * (self._s - self._t)
        return u, (half_logsnr(self._sde, u) - self._start) / self._width

    def _change_at(self, u: Images, time: Float[Array, ""]) -> Images:
        estimate = self._denoise(u, time)
        if self._of_noise:
            estimate = noise_estimate(self._sde, u, estimate, time)
        return estimate - self._at_start
