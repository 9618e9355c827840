"""UniPC, multistep (arXiv:2302.04867, Alg. 1-2)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import PositiveInt

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time
from dig_jax.solvers.exponential import (
    History,
    Scalar,
    empty_history,
    exponential_moments,
    half_logsnr,
    interpolation_weights,
    multistep_orders,
)

Variant: TypeAlias = Literal["bh1", "bh2"]


class State(NamedTuple):
    """What is needed to correct the x that the last step predicted.

    Attributes:
        x: Corrected x at the time of the latest estimate.
        past: The estimates.
    """

    x: Images
    past: History


def unipc(
    sde: SDE,
    num_steps: PositiveInt,
    *,
    order: Literal[1, 2, 3] = 3,
    variant: Variant = "bh2",
    lower_order_final: bool = True,
) -> Solver:
    """UniPC-p in data prediction: UniP predicts, UniC corrects to order p + 1.

    One evaluation a step: the estimate at the predicted x corrects that x, and then
    predicts the next. The last x is not corrected.

    Args:
        sde: The forward process.
        num_steps: Steps, at least as many as the order.
        order: Highest order p of a step; the first steps build it up.
        variant: B(h), which matters in steps of order 1 and 2 alone: h, or
            1 - e^-h (bh2).
        lower_order_final: Let the order fall to 1 at the end, as the authors do.

    Raises:
        InputError: Fewer steps than the order.
    """
    orders = multistep_orders("unipc", order, num_steps, lower_order_final)

    def move(
        x: Images, past: History, s: Scalar, index: Int[Array, ""], new: Images | None
    ) -> Images:
        of_order = jnp.asarray(orders)[index]
        return _move(sde, x, past, s, of_order, new, variant=variant, most=order)

    def step(
        denoise: Denoiser, x: Images, state: State, t: Time, s: Time, noise: Noise
    ) -> tuple[Images, State]:
        x0, index = denoise(x, t), state.past.index
        x = jax.lax.cond(
            index > 0,
            lambda: move(state.x, state.past, t, index - 1, new=x0),
            lambda: x,
        )
        past = state.past.push(t, x0)
        return move(x, past, s, index, new=None), State(x, past)

    return Solver(
        init=lambda x: State(x, empty_history(x, order)),
        step=step,
        evaluations=(1,) * num_steps,
    )


def _move(
    sde: SDE,
    x: Images,
    past: History,
    s: Scalar,
    order: Int[Array, ""],
    new: Images | None,
    *,
    variant: Variant,
    most: int,
) -> Images:
    """x at the time of the latest estimate moved to s, by a step of an order.

    Args:
        sde: The forward process.
        x: Images at the time of the latest estimate.
        past: The estimates.
        s: Where to.
        order: Of this step.
        new: The estimate at s, which makes the step UniC; None for UniP.
        variant: B(h).
        most: The highest order of a step.
    """
    t, *earlier = past.times
    x0, *estimates = past.estimates
    start = half_logsnr(sde, t)
    h = half_logsnr(sde, s) - start
    nodes = [(half_logsnr(sde, u) - start) / h for u in earlier]
    if new is None:
        weights_by_order = predictor_weights(h, nodes, variant)
    else:
        weights_by_order = corrector_weights(h, nodes, variant)
        estimates = [new, *estimates]
    branch = jnp.where(jnp.isfinite(h), order - 1, 0)
    weights = jax.lax.switch(branch, weights_by_order[:most])
    integral = -jnp.expm1(-h) * x0
    for weight, estimate in zip(weights, estimates, strict=False):
        integral += weight * (estimate - x0)
    return sde.sigma(s) / sde.sigma(t) * x + sde.alpha(s) * integral


def predictor_weights(
    h: Scalar, nodes: list[Scalar], variant: Variant
) -> list[Callable[[], Float[Array, "3"]]]:
    """For orders 1, 2, 3: weights of the differences between earlier estimates."""
    moments = exponential_moments(h, 3)
    return [
        lambda: _three([], h),
        lambda: _three([_half_b(h, variant) / nodes[0]], h),
        lambda: _three(interpolation_weights(nodes, moments), h),
    ]


def corrector_weights(
    h: Scalar, nodes: list[Scalar], variant: Variant
) -> list[Callable[[], Float[Array, "3"]]]:
    """For orders 1, 2, 3: the same, the new estimate (at node 1) before the others."""
    moments = exponential_moments(h, 4)
    nodes = [jnp.ones_like(h), *nodes]
    return [
        lambda: _three([_half_b(h, variant)], h),
        lambda: _three(interpolation_weights(nodes[:2], moments), h),
        lambda: _three(interpolation_weights(nodes, moments), h),
    ]


def _half_b(h: Scalar, variant: Variant) -> Scalar:
    """B(h) / 2; bh2's where h is infinite, as bh1 has no limit."""
    half_bh2 = -jnp.expm1(-h) / 2
    if variant == "bh2":
        return half_bh2
    return jnp.where(jnp.isfinite(h), h / 2, half_bh2)


def _three(weights: Sequence[Scalar], h: Scalar) -> Float[Array, "3"]:
    """As many weights for each order, as the branches of a switch must agree."""
    return jnp.stack([*weights, *[jnp.zeros_like(h)] * (3 - len(weights))])
