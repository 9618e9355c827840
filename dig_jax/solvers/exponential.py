"""Exponential integrators in lambda = log(alpha / sigma), through data prediction.

The probability-flow ODE from t down to s is solved by (arXiv:2211.01095, Prop. 4.1)

    x_s = sigma_s / sigma_t x_t + alpha_s int_0^1 h e^{h (tau - 1)} D(tau) dtau

with D = E[x0 | x] at lambda = lambda_t + tau h, h = lambda_s - lambda_t. A solver puts
a polynomial through estimates of D in its place. Where lambda_t or lambda_s is infinite
the integral is the D of tau = 1, and all moments are 1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Images

Scalar = Float[Array, ""]


class History(NamedTuple):
    """What a multistep solver remembers, the latest first.

    Attributes:
        index: Steps done.
        times: Times of the estimates.
        estimates: E[x0 | x_t] at those times.
    """

    index: Int[Array, ""]
    times: tuple[Scalar, ...]
    estimates: tuple[Images, ...]

    def push(self, t: Scalar, x0: Images) -> "History":
        """Remember one more estimate and forget the oldest."""
        return History(
            self.index + 1, (t, *self.times)[:-1], (x0, *self.estimates)[:-1]
        )


def empty_history(x: Images, length: int) -> History:
    """Room for that many estimates."""
    zero = jnp.zeros((), x.dtype)
    return History(
        jnp.zeros((), jnp.int32), (zero,) * length, (jnp.zeros_like(x),) * length
    )


def multistep_orders(
    name: str, order: int, num_steps: int, lower_order_final: bool
) -> tuple[int, ...]:
    """The order of each step: as many as there are estimates, and fewer at the end.

    Raises:
        InputError: Fewer steps than the order.
    """
    if num_steps < order:
        raise InputError(
            f"The solver {name} of order {order} needs at least {order} steps, got "
            f"{num_steps}: take more steps, or a lower order."
        )
    return tuple(
        min(order, done + 1, num_steps - done if lower_order_final else order)
        for done in range(num_steps)
    )


def half_logsnr(sde: SDE, t: Scalar) -> Scalar:
    """lambda = log(alpha / sigma)."""
    return sde.logsnr(t) / 2


def exponential_moments(h: Scalar, count: int) -> list[Scalar]:
    """Integrals of h e^{h (tau - 1)} tau^i over [0, 1] for i = 0 ... count - 1.

    By parts, moment i is 1 - i / h times moment i - 1. That cancels for small h, where
    the last one is a series and the others follow downwards.
    """
    last = count - 1
    upwards = [-jnp.expm1(-h)]
    for i in range(1, count):
        upwards.append(1 - i / h * upwards[-1])
    small = jnp.minimum(h, 1)
    terms = jnp.ones_like(h)
    for k in range(17, 0, -1):  # 1 / 18! is below float64's rounding
        terms = 1 - small / (last + 1 + k) * terms
    downwards = [small / (last + 1) * terms]
    for i in range(last, 0, -1):
        downwards.insert(0, small / i * (1 - downwards[0]))
    pairs = zip(downwards, upwards, strict=True)
    return [jnp.where(h < 1, down, up) for down, up in pairs]


def interpolation_weights(
    nodes: Sequence[Any], moments: Sequence[Scalar]
) -> tuple[Scalar, ...]:
    """Weights of D(node) - D(0) in the integral of the polynomial through all of them.

    By Newton's divided differences, so that the last node may be infinitely far away
    and then weighs nothing.

    Args:
        nodes: Values of tau besides 0.
        moments: From `exponential_moments`, one more than there are nodes.
    """
    weights: list[Any] = [0.0] * len(nodes)
    newton: list[Any] = [1.0]  # coefficients of tau, tau^2, ... in tau (tau - n_1) ...
    for k, node in enumerate(nodes):
        integral = sum(c * m for c, m in zip(newton, moments[1:], strict=False))
        for j in range(k + 1):
            spread = nodes[j]
            for i in range(k + 1):
                spread = spread if i == j else spread * (nodes[j] - nodes[i])
            weights[j] += integral / spread
        raised, kept = [0.0, *newton], [*newton, 0.0]
        newton = [a - node * b for a, b in zip(raised, kept, strict=True)]
    return tuple(weights)
