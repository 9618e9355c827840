"""The training objective L_simple, in the space that it is measured in."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dig_jax.diffusion.prediction import (
    Prediction,
    error_scale,
    per_image,
    prediction_target,
)
from dig_jax.interfaces import SDE, ApplyFn, Images, Labels, Params


def sample_times(
    key: PRNGKeyArray, batch: int, times: Literal["uniform", "stratified"]
) -> Float[Array, "batch"]:
    """Diffusion times on [0, 1), one for each image of a batch.

    uniform: independent. stratified: one uniform offset and equal spacing
    (arXiv:2107.00630, App. I.1), so that each batch covers all noise levels: the same
    expectation with less variance.
    """
    if times == "uniform":
        return jax.random.uniform(key, (batch,))
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1.0


def simple_loss(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    key: PRNGKeyArray,
    x0: Images,
    label: Labels | None,
    *,
    prediction: Prediction = "eps",
    loss_space: Prediction = "eps",
    times: Literal["uniform", "stratified"] = "uniform",
) -> Float[Array, ""]:
    """Mean squared error at random times, L_simple (arXiv:2006.11239, Eq. 14).

    Args:
        apply: The network.
        params: Its parameters.
        sde: The forward process.
        key: Draws times and noise.
        x0: Clean images in [-1, 1].
        label: Their labels, or None.
        prediction: What the network predicts.
        loss_space: What the squared error is measured in; L_simple is that of eps.
        times: How times are drawn.
    """
    time_key, noise_key = jax.random.split(key)
    t = sample_times(time_key, len(x0), times)
    eps = jax.random.normal(noise_key, x0.shape)
    x = per_image(sde.alpha(t)) * x0 + per_image(sde.sigma(t)) * eps
    output = apply(params, x, t, label)
    error = output - prediction_target(prediction, sde, x0, eps, t)
    if loss_space != prediction:
        # Where sigma = 0, an error in x0 would weigh infinitely in eps.
        t = jnp.maximum(t, 1e-5)
        scale = error_scale(prediction, sde, t) / error_scale(loss_space, sde, t)
        error = error * per_image(scale)
    return jnp.mean(jnp.square(error))
