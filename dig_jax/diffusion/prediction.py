"""What a network predicts, and the denoiser that it makes.

With x_t = alpha x0 + sigma eps, each prediction is a combination of x0 and eps, and
with x_t it gives both. An error e in one is an error in another times a factor that
depends on t alone, which is how losses are moved between them. All hold on any path:
alpha^2 + sigma^2 need not be 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.interfaces import (
    SDE,
    ApplyFn,
    Denoiser,
    Images,
    Labels,
    Params,
    Times,
    VarianceDenoiser,
    VarianceFn,
)
from dig_jax.options import LossSpace, Objective, Prediction

Scale: TypeAlias = Float[Array, "*scales"]

# alpha is at least this where it divides: it matters only in the last 1e-4 of a path
# that ends without signal.
ALPHA_MIN = 1e-4
# Where a prediction says nothing about what its error is measured in, as x0 about eps
# at t = 0, the error would weigh infinitely.
MAX_ERROR_FACTOR = 1e3


def per_image(values: Float[Array, "*batch"]) -> Float[Array, "*batch 1 1 1"]:
    """Give one value for each image the axes of an image."""
    return values[..., None, None, None]


def add_noise(sde: SDE, x0: Images, eps: Images, t: Times) -> Images:
    """x_t = alpha(t) x0 + sigma(t) eps, each image at its own time."""
    return per_image(sde.alpha(t)) * x0 + per_image(sde.sigma(t)) * eps


def network_input(objective: Objective, sde: SDE, x: Images, t: Times) -> Images:
    """What the network is shown of x_t.

    x_t itself, or for the edm prediction c_in x_t / alpha, which has unit variance.
    """
    if objective.prediction != "edm":
        return x
    return x / per_image(_norm(sde.alpha(t), sde.sigma(t), objective.sigma_data))


def prediction_target(
    objective: Objective, sde: SDE, x0: Images, eps: Images, t: Times
) -> Images:
    """What the network should predict for x_t = alpha x0 + sigma eps."""
    alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
    match objective.prediction:
        case "eps":
            return eps
        case "x0":
            return x0
        case "v":
            return alpha * eps - sigma * x0
        case "flow":
            return eps - x0
        case "edm":
            std = objective.sigma_data
            norm = _norm(alpha, sigma, std)
            return sigma / (std * norm) * x0 - std * alpha / norm * eps


def prediction_to_x0(
    objective: Objective, sde: SDE, output: Images, x: Images, t: Times
) -> Images:
    """The estimate of x0 that a network's output at x = x_t amounts to."""
    alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
    match objective.prediction:
        case "eps":
            return (x - sigma * output) / jnp.maximum(alpha, ALPHA_MIN)
        case "x0":
            return output
        case "v":
            return (alpha * x - sigma * output) / (alpha**2 + sigma**2)
        case "flow":
            return (x - sigma * output) / (alpha + sigma)
        case "edm":
            # c_skip x / alpha + c_out F, without their divisions by alpha.
            std = objective.sigma_data
            norm = _norm(alpha, sigma, std)
            return alpha * (std / norm) ** 2 * x + sigma * (std / norm) * output


def error_scale(space: LossSpace, objective: Objective, sde: SDE, t: Scale) -> Scale:
    """Error in x0 for a unit error in a space, such as sigma / alpha for eps; >= 0."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    match space:
        case "eps":
            return sigma / jnp.maximum(alpha, ALPHA_MIN)
        case "x0":
            return jnp.ones_like(t)
        case "v":
            return sigma / (alpha**2 + sigma**2)
        case "flow":
            return sigma / (alpha + sigma)
        case "edm":
            std = objective.sigma_data
            return sigma * std / _norm(alpha, sigma, std)
        case "min_snr":
            # The root of the weight min(alpha^2 / sigma^2, gamma), upside down.
            noise = sigma / jnp.maximum(alpha, ALPHA_MIN)
            return jnp.maximum(noise, objective.min_snr_gamma**-0.5)


def error_factor(space: LossSpace, objective: Objective, sde: SDE, t: Scale) -> Scale:
    """Error in a space for a unit error in the network's prediction, at most 1000."""
    if space == objective.prediction:
        return jnp.ones_like(t)
    t = jnp.maximum(t, 1e-5)  # scales may be 0 at t = 0, their ratio not
    own = error_scale(objective.prediction, objective, sde, t)
    factor = own / error_scale(space, objective, sde, t)
    return jnp.minimum(factor, MAX_ERROR_FACTOR)


def make_denoiser(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    objective: Objective | Prediction,
    label: Labels | None = None,
) -> Denoiser:
    """The denoiser (x_t, t) -> E[x0 | x_t] of a network with fixed labels.

    Args:
        apply: The network.
        params: Its parameters.
        sde: The forward process.
        objective: What it was trained on, or only what it predicts.
        label: Labels of the images, or None.
    """
    if not isinstance(objective, Objective):
        objective = Objective(prediction=objective)

    def denoise(x: Images, t: Float[Array, "*batch"]) -> Images:
        t = jnp.broadcast_to(t, x.shape[:1])
        output = apply(params, network_input(objective, sde, x, t), t, label)
        return prediction_to_x0(objective, sde, output, x, t)

    return denoise


@dataclass(frozen=True)
class WithVariance:
    """A `VarianceDenoiser` from the function that gives both."""

    both: Callable[[Images, Float[Array, "*batch"]], tuple[Images, Images]]

    def __call__(self, x: Images, t: Float[Array, "*batch"]) -> Images:
        """E[x0 | x_t] alone."""
        return self.both(x, t)[0]

    def with_variance(
        self, x: Images, t: Float[Array, "*batch"]
    ) -> tuple[Images, Images]:
        """E[x0 | x_t], and the variance."""
        return self.both(x, t)


def make_variance_denoiser(
    network: VarianceFn,
    params: Params,
    sde: SDE,
    objective: Objective,
    label: Labels | None = None,
) -> VarianceDenoiser:
    """`make_denoiser` of a network that learns the variance too.

    Args:
        network: `Backbone.with_variance`.
        params: Its parameters.
        sde: The forward process.
        objective: What it was trained on.
        label: Labels of the images, or None.
    """

    def both(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
        t = jnp.broadcast_to(t, x.shape[:1])
        output, variance = network(
            params, network_input(objective, sde, x, t), t, label
        )
        return prediction_to_x0(objective, sde, output, x, t), variance

    return WithVariance(both)


def _norm(alpha: Scale, sigma: Scale, sigma_data: float) -> Scale:
    """Standard deviation of x_t for pixels of standard deviation sigma_data."""
    return jnp.sqrt((alpha * sigma_data) ** 2 + sigma**2)
