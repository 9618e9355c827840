"""Averages of the parameters with power-function profiles (arXiv:2312.02696).

After t steps parameters of step tau have the weight p(tau) = (gamma + 1) tau^gamma /
t^(gamma + 1), tau from 0 to t (Eq. 1): a profile that widens with the run, and whose
relative width sigma_rel, its standard deviation over t, says what a decay says of an
exponential one. From such averages stored during a run, that of any other width can be
put together afterwards (Sec. 3.2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dig_jax.errors import InputError
from dig_jax.interfaces import Params

SIGMA_RELS = (0.05, 0.10)
"""Widths of the two averages that a run keeps: the paper's."""
SIGMA_REL_RANGE = (0.01, 0.25)


def gamma_of_sigma_rel(sigma_rel: float) -> float:
    """The exponent of a profile of that width (arXiv:2312.02696, App. C, Alg. 2).

    Inverts sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2) (Eq. 3).

    Raises:
        InputError: A width outside of SIGMA_REL_RANGE.
    """
    low, high = SIGMA_REL_RANGE
    if not low <= sigma_rel <= high:
        raise InputError(
            f"sigma_rel, the relative width of a post-hoc EMA, must lie in {low} to "
            f"{high}, got {sigma_rel}."
        )
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def start_power_ema(params: Params) -> tuple[Params, ...]:
    """The averages before the first step: one for each width, of no weight yet."""
    return tuple(jax.tree.map(jnp.copy, params) for _ in SIGMA_RELS)


def update_power_ema(
    power_ema: tuple[Params, ...], params: Params, num_steps: Int[Array, ""]
) -> tuple[Params, ...]:
    """The averages with the parameters of one more step (arXiv:2312.02696, Eq. 2).

    The step's weight is 1 - beta, beta = (1 - 1 / num_steps)^(gamma + 1): the integral
    of the profile over the step. The first step's is 1.

    Args:
        power_ema: One average for each of SIGMA_RELS, or () for none.
        params: Parameters after the step.
        num_steps: Steps done, this one included.
    """
    if not power_ema:
        return ()
    log_left = jnp.log1p(-1 / num_steps.astype(jnp.float32))
    updated = []
    for ema, sigma_rel in zip(power_ema, SIGMA_RELS, strict=True):
        weight = -jnp.expm1((gamma_of_sigma_rel(sigma_rel) + 1) * log_left)
        updated.append(_move_towards(ema, params, weight))
    return tuple(updated)


def _move_towards(ema: Params, params: Params, weight: Float[Array, ""]) -> Params:
    return jax.tree.map(lambda e, p: e + weight * (p - e), ema, params)


def solve_weights(
    steps: Int[np.ndarray, "average"],
    sigma_rels: Float[np.ndarray, "average"],
    step: int,
    sigma_rel: float,
) -> tuple[Float[np.ndarray, "average"], float]:
    """Weights that combine stored averages into another (arXiv:2312.02696, Alg. 3).

    The profiles' sum comes as near as it can, in least squares over the run, to the
    profile asked for. We also hold the sum of the weights at one, so that a parameter
    that never moves comes out as it is however few averages there are.

    Args:
        steps: Step of each stored average.
        sigma_rels: Its width.
        step: Step of the average to make.
        sigma_rel: Its width.

    Returns:
        The weights, and the distance between the two profiles, relative to the norm of
        the one asked for.
    """
    time = steps / step
    gamma = np.array([gamma_of_sigma_rel(s) for s in sigma_rels])
    target = gamma_of_sigma_rel(sigma_rel)
    products = _profile_product(time[:, None], gamma[:, None], time, gamma)
    with_target = _profile_product(time, gamma, np.float64(1), np.float64(target))
    right = np.stack([with_target, np.ones_like(time)], axis=1)
    free, shift = np.linalg.solve(products, right).T
    weights = free + shift * (1 - free.sum()) / shift.sum()
    norm2 = _profile_product(
        np.float64(1), np.float64(target), np.float64(1), np.float64(target)
    )
    distance2 = norm2 - 2 * weights @ with_target + weights @ products @ weights
    return weights, float(np.sqrt(max(distance2, 0.0) / norm2))


def _profile_product(t_a, gamma_a, t_b, gamma_b) -> Float[np.ndarray, "..."]:
    """The integral of the product of two profiles, over both runs (App. C, Alg. 3)."""
    ratio = t_a / t_b
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return np.asarray(scale * ratio**exponent / np.maximum(t_a, t_b))
