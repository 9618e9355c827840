"""The VP-SDE through the noise levels of a discrete chain (DDPM, arXiv:2006.11239).

Published latent models were trained on 1,000 steps n = 1 ... N. Here t = n / N, and
log alpha is linear in t between the steps, as DPM-Solver's authors read such a chain
(arXiv:2206.00927, App. D), and down to 0 at t = 0.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from dig_jax.errors import InputError

Time = Float[Array, "*batch"]
Spacing: TypeAlias = Literal["scaled_linear", "linear"]


@dataclass(frozen=True)
class VPDiscrete:
    """alpha^2 = (1 - beta_1) ... (1 - beta_n) at t = n / N; alpha^2 + sigma^2 = 1.

    Between two steps beta(t) is constant. Some of the image is left at t = 1 (7% under
    the default); sampling starts from standard normal noise all the same, which has the
    right variance where the data's is 1.

    Attributes:
        betas: scaled_linear: sqrt(beta_n) rises linearly (arXiv:2112.10752, and
            latent U-ViT and DiMR); linear: beta_n does (DDPM, and DiT).
        beta_min: beta_1.
        beta_max: beta_N.
        num_steps: N.
    """

    betas: Spacing = "scaled_linear"
    beta_min: float = 0.00085
    beta_max: float = 0.012
    num_steps: int = 1000
    prior_std: float = field(default=1.0, init=False)

    @property
    def log_alphas(self) -> Float[np.ndarray, "step"]:
        """log alpha at n = 0 ... N, in float64."""
        return _log_alphas(self.betas, self.beta_min, self.beta_max, self.num_steps)

    def log_alpha(self, t: Time) -> Time:
        """log alpha(t)."""
        table, place = self._table(t), t * self.num_steps
        n = self._step_before(t)
        return table[n] + (place - n) * (table[n + 1] - table[n])

    def beta(self, t: Time) -> Time:
        """Noise rate beta(t) = -N log(1 - beta_n) between the steps n - 1 and n."""
        table, n = self._table(t), self._step_before(t)
        return -2 * self.num_steps * (table[n + 1] - table[n])

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
        """The inverse of `logsnr`; 1 for less than the last step's."""
        log_alpha = -0.5 * jnp.logaddexp(0.0, -logsnr)
        table = self._table(logsnr)
        # The table falls; with its sign turned it rises, as a search needs.
        found = jnp.searchsorted(-table, -log_alpha, side="right") - 1
        n = jnp.clip(found, 0, self.num_steps - 1)
        part = (log_alpha - table[n]) / (table[n + 1] - table[n])
        return jnp.minimum((n + part) / self.num_steps, 1.0)

    def drift(self, t: Time) -> Time:
        """f(t) = -beta / 2, the factor of x in the drift."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Time) -> Time:
        """g(t) = sqrt(beta)."""
        return jnp.sqrt(self.beta(t))

    def _table(self, like: Time) -> Float[Array, "step"]:
        """log alpha at n = 0 ... N."""
        return jnp.asarray(self.log_alphas, jnp.result_type(like, jnp.float32))

    def _step_before(self, t: Time) -> Int[Array, "*batch"]:
        """The step n < N at or before t."""
        n = jnp.floor(t * self.num_steps).astype(jnp.int32)
        return jnp.clip(n, 0, self.num_steps - 1)


@lru_cache
def _log_alphas(
    spacing: Spacing, beta_min: float, beta_max: float, num_steps: int
) -> Float[np.ndarray, "step"]:
    """log alpha at n = 0 ... N, in float64."""
    if spacing == "linear":
        betas = np.linspace(beta_min, beta_max, num_steps)
    else:
        betas = np.linspace(beta_min**0.5, beta_max**0.5, num_steps) ** 2
    return np.concatenate([[0.0], np.cumsum(np.log1p(-betas)) / 2])


def create_vp_discrete(
    *,
    betas: Spacing = "scaled_linear",
    beta_min: Annotated[float, Field(gt=0, lt=1)] = 0.00085,
    beta_max: Annotated[float, Field(gt=0, lt=1)] = 0.012,
    num_steps: Annotated[int, Field(ge=2)] = 1000,
) -> VPDiscrete:
    """The noise of a discrete chain; the default is Stable Diffusion's.

    Args:
        betas: scaled_linear (their roots rise linearly) or linear; DDPM and DiT have
            linear with beta_min=0.0001, beta_max=0.02.
        beta_min: The first beta, in (0, 1).
        beta_max: The last, at least beta_min.
        num_steps: Steps of the chain.

    Raises:
        InputError: beta_max below beta_min.
    """
    if beta_max < beta_min:
        raise InputError(
            f"beta_max must be at least beta_min = {beta_min}, got {beta_max}."
        )
    return VPDiscrete(betas, beta_min, beta_max, num_steps)
