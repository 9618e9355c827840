"""A network whose error is known, in each way to say it."""

import typing

import jax
import jax.numpy as jnp

from dig_jax.diffusion import (
    create_sde,
)
from dig_jax.diffusion.prediction import per_image, prediction_target
from dig_jax.options import Prediction

SDE = create_sde("vp_linear")
PREDICTIONS = typing.get_args(Prediction)
X0 = jax.random.uniform(jax.random.key(7), (64, 4, 4, 1), minval=-1.0)


def predict_x0(params, x, t):
    """Some smooth network that estimates x0 from x and t."""
    return jnp.tanh(params * x + per_image(t))


def as_prediction(objective, apply_x0, sde=SDE):
    """The network of an objective that says this about x0."""

    def apply(params, x, t, label):
        alpha, sigma = per_image(sde.alpha(t)), per_image(sde.sigma(t))
        if objective.prediction == "edm":  # it is shown a scaled image
            x = x * jnp.sqrt((alpha * objective.sigma_data) ** 2 + sigma**2)
        x0 = apply_x0(params, x, t)
        return prediction_target(objective, sde, x0, (x - alpha * x0) / sigma, t)

    return apply
