"""Variance-preserving SDEs: dx = f(t) x dt + g(t) dw, with x_t = alpha x0 + sigma eps.

Closed forms throughout, stable near t = 0.
"""

from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import PositiveFloat

from dig_jax.errors import InputError

Time = Float[Array, "*batch"]


@dataclass(frozen=True)
class VPLinear:
    """The VP-SDE with beta(t) = beta_min + t (beta_max - beta_min) (arXiv:2011.13456).

    t is in [0, 1]; alpha^2 + sigma^2 = 1.

    Attributes:
        beta_min: beta at t = 0, positive.
        beta_max: beta at t = 1, at least beta_min.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    prior_std: float = field(default=1.0, init=False)

    def beta(self, t: Time) -> Time:
        """Noise rate beta(t)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Time) -> Time:
        """log alpha(t) = -1/2 int_0^t beta."""
        slope = self.beta_max - self.beta_min
        return -0.25 * slope * jnp.square(t) - 0.5 * self.beta_min * t

    def alpha(self, t: Time) -> Time:
        """Weight of x0 in x_t."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Time) -> Time:
        """Weight of the noise in x_t: sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(2 * self.log_alpha(t)))

    def logsnr(self, t: Time) -> Time:
        """Log signal-to-noise ratio log(alpha^2 / sigma^2); infinite at t = 0."""
        log_alpha_squared = 2 * self.log_alpha(t)
        return log_alpha_squared - jnp.log(-jnp.expm1(log_alpha_squared))

    def time_of_logsnr(self, logsnr: Time) -> Time:
        """The inverse of `logsnr`: a root of a quadratic, without cancellation."""
        minus_log_alpha = 0.5 * jnp.logaddexp(0.0, -logsnr)
        slope = self.beta_max - self.beta_min
        root = jnp.sqrt(jnp.square(self.beta_min) + 4 * slope * minus_log_alpha)
        return 4 * minus_log_alpha / (self.beta_min + root)

    def drift(self, t: Time) -> Time:
        """f(t) = -beta / 2, the factor of x in the drift."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Time) -> Time:
        """g(t) = sqrt(beta)."""
        return jnp.sqrt(self.beta(t))


def create_vp_linear(
    *, beta_min: PositiveFloat = 0.1, beta_max: PositiveFloat = 20.0
) -> VPLinear:
    """The linear VP-SDE.

    Raises:
        InputError: beta_max below beta_min.
    """
    if beta_max < beta_min:
        raise InputError(
            f"beta_max must be at least beta_min = {beta_min}, got {beta_max}."
        )
    return VPLinear(beta_min, beta_max)
