"""What a network predicts, and the denoiser that it makes.

With x_t = alpha x0 + sigma eps, a prediction of eps, x0 or v = alpha eps - sigma x0
(arXiv:2202.00512) gives the others. An error e in one is an error in another times a
factor that depends on t alone, which is how losses are moved between them.
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.interfaces import SDE, ApplyFn, Denoiser, Images, Labels, Params

Prediction: TypeAlias = Literal["eps", "x0", "v"]


def per_image(values: Float[Array, "*batch"]) -> Float[Array, "*batch 1 1 1"]:
    """Give one value for each image the axes of an image."""
    return values[..., None, None, None]


def prediction_target(
    prediction: Prediction, sde: SDE, x0: Images, eps: Images, t: Array
) -> Images:
    """What the network should predict for x_t = alpha x0 + sigma eps."""
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    return per_image(sde.alpha(t)) * eps - per_image(sde.sigma(t)) * x0


def prediction_to_x0(
    prediction: Prediction, sde: SDE, output: Images, x: Images, t: Array
) -> Images:
    """The estimate of x0 that a network's output at x = x_t amounts to."""
    alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
    if prediction == "eps":
        return (x - sigma * output) / alpha
    if prediction == "x0":
        return output
    return alpha * x - sigma * output


def error_scale(prediction: Prediction, sde: SDE, t: Array) -> Array:
    """Error in x0 for a unit error in the prediction: sigma/alpha, 1 or sigma."""
    if prediction == "eps":
        return sde.sigma(t) / sde.alpha(t)
    if prediction == "x0":
        return jnp.ones_like(t)
    return sde.sigma(t)


def make_denoiser(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    prediction: Prediction,
    label: Labels | None = None,
) -> Denoiser:
    """The denoiser (x_t, t) -> E[x0 | x_t] of a network with fixed labels."""

    def denoise(x: Images, t: Float[Array, "*batch"]) -> Images:
        t = jnp.broadcast_to(t, x.shape[:1])
        output = apply(params, x, t, label)
        return prediction_to_x0(prediction, sde, output, x, t)

    return denoise
