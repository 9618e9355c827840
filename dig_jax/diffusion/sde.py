"""SDEs: dx = f(t) x dt + g(t) dw, which makes x_t = alpha(t) x0 + sigma(t) eps.

t is in [0, 1], from data to noise. Closed forms throughout, written so that float32
keeps its digits at both ends of time.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field, PositiveFloat

from dig_jax.errors import InputError

Time = Float[Array, "*batch"]


@dataclass(frozen=True)
class VPLinear:
    """The VP-SDE with beta(t) = beta_min + t (beta_max - beta_min) (arXiv:2011.13456).

    alpha^2 + sigma^2 = 1.

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

    Args:
        beta_min: beta at t = 0.
        beta_max: beta at t = 1, at least beta_min.

    Raises:
        InputError: beta_max below beta_min.
    """
    if beta_max < beta_min:
        raise InputError(
            f"beta_max must be at least beta_min = {beta_min}, got {beta_max}."
        )
    return VPLinear(beta_min, beta_max)


@dataclass(frozen=True)
class VPCosine:
    """The VP-SDE with alpha = cos(theta) / cos(theta_0) (arXiv:2102.09672, Eq. 17).

    theta rises linearly from theta_0 = (pi/2) offset / (1 + offset). In the paper it
    ends at pi/2, without signal, and the last betas are clipped; here t is stretched so
    that t = 1 is where the log signal-to-noise ratio reaches `logsnr_min`, a little
    before (by 0.4% of the time for -10). alpha^2 + sigma^2 = 1.

    Attributes:
        offset: The paper's s; keeps beta(0) from being 0.
        logsnr_min: Log signal-to-noise ratio at t = 1; that of VPLinear is -10.05.
    """

    offset: float = 0.008
    logsnr_min: float = -10.0
    prior_std: float = field(default=1.0, init=False)

    @property
    def theta_start(self) -> float:
        """theta at t = 0."""
        return math.pi / 2 * self.offset / (1 + self.offset)

    @property
    def theta_left(self) -> float:
        """pi/2 - theta at t = 1, what the stretched time leaves out."""
        alpha = 1 / math.sqrt(1 + math.exp(-self.logsnr_min))
        return math.asin(math.cos(self.theta_start) * alpha)

    @property
    def theta_speed(self) -> float:
        """d theta / dt."""
        return math.pi / 2 / (1 + self.offset) - self.theta_left

    def cos_theta(self, t: Time) -> Time:
        """cos(theta(t)) as the sine of pi/2 - theta, exact to rounding at both ends."""
        start = math.pi / 2 / (1 + self.offset)
        return jnp.sin((1 - t) * start + t * self.theta_left)

    def beta(self, t: Time) -> Time:
        """Noise rate beta(t) = 2 theta' tan(theta)."""
        sin_theta = jnp.sin(self.theta_start + t * self.theta_speed)
        return 2 * self.theta_speed * sin_theta / self.cos_theta(t)

    def alpha(self, t: Time) -> Time:
        """Weight of x0 in x_t."""
        return self.cos_theta(t) / math.cos(self.theta_start)

    def sigma(self, t: Time) -> Time:
        """Weight of the noise: cos^2(a) - cos^2(b) = sin(b - a) sin(b + a)."""
        moved = t * self.theta_speed
        product = jnp.sin(moved) * jnp.sin(2 * self.theta_start + moved)
        return jnp.sqrt(product) / math.cos(self.theta_start)

    def logsnr(self, t: Time) -> Time:
        """Log signal-to-noise ratio log(alpha^2 / sigma^2); infinite at t = 0."""
        moved = t * self.theta_speed
        product = jnp.sin(moved) * jnp.sin(2 * self.theta_start + moved)
        return 2 * jnp.log(self.cos_theta(t)) - jnp.log(product)

    def time_of_logsnr(self, logsnr: Time) -> Time:
        """The inverse of `logsnr`: theta - theta_0 from its sine and its cosine."""
        cos_start, sin_start = math.cos(self.theta_start), math.sin(self.theta_start)
        noise = cos_start**2 * jax.nn.sigmoid(-logsnr)  # sin^2(theta) - sin^2(theta_0)
        cos = cos_start * jnp.sqrt(jax.nn.sigmoid(logsnr))
        sin = jnp.sqrt(sin_start**2 + noise)
        sin_moved = noise / (sin * cos_start + cos * sin_start)
        cos_moved = cos * cos_start + sin * sin_start
        return jnp.arctan2(sin_moved, cos_moved) / self.theta_speed

    def drift(self, t: Time) -> Time:
        """f(t) = -beta / 2, the factor of x in the drift."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: Time) -> Time:
        """g(t) = sqrt(beta)."""
        return jnp.sqrt(self.beta(t))


def create_vp_cosine(
    *,
    offset: PositiveFloat = 0.008,
    logsnr_min: Annotated[float, Field(ge=-18, lt=0)] = -10.0,
) -> VPCosine:
    """The cosine VP-SDE, with no less signal at t = 1 than float32 can tell.

    Args:
        offset: The paper's s; keeps beta(0) from being 0.
        logsnr_min: Log signal-to-noise ratio at t = 1.
    """
    return VPCosine(offset, logsnr_min)


@dataclass(frozen=True)
class Flow:
    """The straight path x_t = (1 - t) x0 + t eps of flow matching (arXiv:2210.02747).

    Also the rectified flow of arXiv:2209.03003; both count time the other way. Nothing
    of x0 is left at t = 1, where `logsnr` is -inf, `drift` -inf and `diffusion` inf.
    """

    prior_std: float = field(default=1.0, init=False)

    def alpha(self, t: Time) -> Time:
        """Weight of x0 in x_t: 1 - t."""
        return 1 - t

    def sigma(self, t: Time) -> Time:
        """Weight of the noise in x_t: t."""
        return t

    def logsnr(self, t: Time) -> Time:
        """Log signal-to-noise ratio 2 log((1 - t) / t), from inf to -inf."""
        return 2 * (jnp.log1p(-t) - jnp.log(t))

    def time_of_logsnr(self, logsnr: Time) -> Time:
        """The inverse of `logsnr`."""
        return jax.nn.sigmoid(-0.5 * logsnr)

    def drift(self, t: Time) -> Time:
        """f(t) = -1 / (1 - t), the factor of x in the drift."""
        return -1 / (1 - t)

    def diffusion(self, t: Time) -> Time:
        """g(t) = sqrt(2 t / (1 - t))."""
        return jnp.sqrt(2 * t / (1 - t))


def create_flow() -> Flow:
    """The straight path, which has no options."""
    return Flow()


@dataclass(frozen=True)
class EDM:
    """Noise that grows over an unscaled image (arXiv:2206.00364, Eq. 5 and Table 1).

    alpha = 1, and sigma^(1/rho) rises linearly from sigma_min to sigma_max, so that
    equal steps of t are the paper's sampling steps.

    Attributes:
        sigma_min: sigma at t = 0, positive.
        sigma_max: sigma at t = 1, above sigma_min; noise that sampling starts from.
        rho: How much shorter the steps are near the data.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    @property
    def prior_std(self) -> float:
        """Standard deviation of the noise that sampling starts from: sigma_max."""
        return self.sigma_max

    @property
    def root_start(self) -> float:
        """sigma^(1/rho) at t = 0."""
        return self.sigma_min ** (1 / self.rho)

    @property
    def root_speed(self) -> float:
        """d sigma^(1/rho) / dt."""
        return self.sigma_max ** (1 / self.rho) - self.root_start

    def alpha(self, t: Time) -> Time:
        """Weight of x0 in x_t: 1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """Weight of the noise in x_t."""
        return (self.root_start + t * self.root_speed) ** self.rho

    def logsnr(self, t: Time) -> Time:
        """Log signal-to-noise ratio -2 log(sigma); finite everywhere."""
        return -2 * self.rho * jnp.log(self.root_start + t * self.root_speed)

    def time_of_logsnr(self, logsnr: Time) -> Time:
        """The inverse of `logsnr`."""
        root = jnp.exp(-0.5 / self.rho * logsnr)
        return (root - self.root_start) / self.root_speed

    def drift(self, t: Time) -> Time:
        """f(t) = 0: the image is not scaled."""
        return jnp.zeros_like(t)

    def diffusion(self, t: Time) -> Time:
        """g(t) = sqrt(2 sigma sigma')."""
        root = self.root_start + t * self.root_speed
        return jnp.sqrt(2 * self.rho * self.root_speed * root ** (2 * self.rho - 1))


def create_edm(
    *,
    sigma_min: PositiveFloat = 0.002,
    sigma_max: PositiveFloat = 80.0,
    rho: Annotated[float, Field(ge=1)] = 7.0,
) -> EDM:
    """The EDM noise schedule.

    Args:
        sigma_min: sigma at t = 0.
        sigma_max: sigma at t = 1, above sigma_min; noise that sampling starts from.
        rho: How much shorter the steps are near the data.

    Raises:
        InputError: sigma_max not above sigma_min.
    """
    if sigma_max <= sigma_min:
        raise InputError(
            f"sigma_max must be above sigma_min = {sigma_min}, got {sigma_max}."
        )
    return EDM(sigma_min, sigma_max, rho)
