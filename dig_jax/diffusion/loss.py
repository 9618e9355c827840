"""Denoising losses: in training at random times, held out on a grid of noise levels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dig_jax.diffusion.by_scale import coarse_target, scale_weight
from dig_jax.diffusion.discrete import VPDiscrete
from dig_jax.diffusion.prediction import (
    add_noise,
    error_factor,
    network_input,
    per_image,
    prediction_target,
    prediction_to_x0,
)
from dig_jax.diffusion.variance import variance_bound
from dig_jax.errors import InputError
from dig_jax.interfaces import (
    SDE,
    ApplyFn,
    Images,
    Labels,
    OutputsFn,
    Params,
    Times,
    VarianceFn,
)
from dig_jax.options import LossSpace, Objective

NUM_STEPS = 1000
"""Of the chains that discrete times are those of."""
NUM_NOISE_LEVELS = 10
"""Equal parts of [0, 1] that losses are told apart by."""


class PerImage(NamedTuple):
    """A batch's losses before their mean, each with its time."""

    loss: Float[Array, "batch"]
    t: Float[Array, "batch"]


def sample_times(
    key: PRNGKeyArray, batch: int, sde: SDE, objective: Objective
) -> Float[Array, "batch"]:
    """Diffusion times in [0, 1], one for each image of a batch.

    stratified: one uniform offset and equal spacing (arXiv:2107.00630, App. I.1), so
    that each batch covers all noise levels: the same expectation with less variance.
    The others are independent; see `Objective`.
    """
    match objective.times:
        case "uniform":
            return jax.random.uniform(key, (batch,))
        case "steps":
            return jax.random.randint(key, (batch,), 1, NUM_STEPS + 1) / NUM_STEPS
        case "stratified":
            return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1.0
        case "log_normal":
            normal = jax.random.normal(key, (batch,))
            log_sigma = objective.log_sigma_mean + objective.log_sigma_std * normal
            return jnp.clip(sde.time_of_logsnr(-2 * log_sigma), 0.0, 1.0)
        case "logit_normal":
            return jax.nn.sigmoid(jax.random.normal(key, (batch,)))


class Draws(NamedTuple):
    """What a training step draws for each image of a batch.

    Attributes:
        t: Diffusion times.
        eps: Noise.
    """

    t: Times
    eps: Images


def draw_times_and_noise(
    key: PRNGKeyArray, x0: Images, sde: SDE, objective: Objective
) -> Draws:
    """A time and noise for each image, as the objective has them."""
    time_key, noise_key = jax.random.split(key)
    t = sample_times(time_key, len(x0), sde, objective)
    return Draws(t, jax.random.normal(noise_key, x0.shape))


def denoising_loss(
    outputs: OutputsFn | VarianceFn,
    params: Params,
    sde: SDE,
    key: PRNGKeyArray,
    x0: Images,
    label: Labels | None,
    *,
    objective: Objective,
) -> tuple[Float[Array, ""], PerImage]:
    """Mean squared error at random times; by default L_simple (arXiv:2006.11239).

    Predictions by scale each have their part: a_r times the mean squared error from
    the target at that scale (`Objective.scale_weights`, `coarse_targets`).

    With `Objective.variance_loss` the network's word on the variance adds that much of
    L_vlb (`variance_bound`), in which the prediction is held fast: it is taught by the
    squared error alone (arXiv:2102.09672, Eq. 16).

    Args:
        outputs: The network, with all predictions that it has (`Backbone.outputs`), or
            with the variance that it learns (`Backbone.with_variance`).
        params: Its parameters.
        sde: The forward process.
        key: Draws times and noise.
        x0: Clean images in [-1, 1].
        label: Their labels, or None.
        objective: Prediction, loss space and times.

    Returns:
        The mean, and the loss of each image with its time.
    """
    draws = draw_times_and_noise(key, x0, sde, objective)
    return loss_of_draws(outputs, params, sde, draws, x0, label, objective=objective)


def loss_of_draws(
    outputs: OutputsFn | VarianceFn,
    params: Params,
    sde: SDE,
    draws: Draws,
    x0: Images,
    label: Labels | None,
    *,
    objective: Objective,
) -> tuple[Float[Array, ""], PerImage]:
    """`denoising_loss` at times and with noise drawn before."""
    t, eps = draws
    x = add_noise(sde, x0, eps, t)
    predictions = outputs(params, network_input(objective, sde, x, t), t, label)
    bound = None
    if objective.variance_loss:
        predictions, said = predictions
        assert isinstance(sde, VPDiscrete), "check_variance_loss was not called"
        fast = jax.lax.stop_gradient(predictions)
        estimate = prediction_to_x0(objective, sde, fast, x, t)
        bound = objective.variance_loss * variance_bound(sde, x0, estimate, said, t)
    target = prediction_target(objective, sde, x0, eps, t)
    loss, of_image = jnp.zeros(()), jnp.zeros(len(x0))
    for prediction in jax.tree.leaves(predictions):
        factor = x0.shape[1] // prediction.shape[1]
        weight = scale_weight(factor, objective.scale_weights)
        error = prediction - coarse_target(target, factor, objective.coarse_targets)
        if objective.loss_space != objective.prediction:
            moved = error_factor(objective.loss_space, objective, sde, t)
            error = error * per_image(moved)
        squared = jnp.square(error)
        loss = loss + weight * jnp.mean(squared)
        of_image = of_image + weight * jnp.mean(squared, axis=(1, 2, 3))
    if bound is not None:
        loss, of_image = loss + jnp.mean(bound), of_image + bound
    return loss, PerImage(of_image, t)


def loss_by_noise_level(
    loss: Float[Array, "batch"],
    t: Float[Array, "batch"],
    num_bins: int = NUM_NOISE_LEVELS,
) -> tuple[Float[Array, "bin"], Float[Array, "bin"]]:
    """Sum and number of losses in each of num_bins equal parts of [0, 1], by time.

    Sums add up over steps and devices; a mean is their quotient where there are any.
    """
    bin_of = jnp.clip(jnp.floor(t * num_bins), 0, num_bins - 1)
    inside = bin_of == jnp.arange(num_bins)[:, None]  # [bin, batch]
    # Not a product: a loss that is not finite would be so in every bin.
    sums = jnp.where(inside, loss, 0.0).sum(axis=1, dtype=jnp.float32)
    return sums, inside.sum(axis=1, dtype=jnp.float32)


def noise_level_losses(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    key: PRNGKeyArray,
    x0: Images,
    label: Labels | None,
    *,
    objective: Objective,
    num_bins: int = NUM_NOISE_LEVELS,
    loss_spaces: tuple[LossSpace, ...] = ("x0", "eps"),
    batch_size: int | None = None,
) -> dict[str, Float[Array, "bin batch"]]:
    """Squared error of each held-out image at each noise level, in several spaces.

    In each of num_bins equal parts of [0, 1] every image is noised once, at times
    stratified over that part. Times and noise come from the key alone, so networks
    under one SDE are measured on the same noised images whatever they predict, and can
    be compared image by image.

    Args:
        apply: The network.
        params: Its parameters.
        sde: The forward process.
        key: Draws times and noise, other ones for each batch of images.
        x0: Clean images in [-1, 1].
        label: Their labels, or None.
        objective: What the network predicts.
        num_bins: Number of noise levels, from data to noise.
        loss_spaces: What the error is measured in.
        batch_size: Images that the network sees at a time, at most; None for all.

    Returns:
        For each space the mean over pixels of the squared error, [bin, batch].
    """
    stratified = Objective(times="stratified")
    count = len(x0)
    num_parts = -(-count // min(batch_size or count, count))
    part_size = -(-count // num_parts)

    def squared_error(of: tuple[Images, Images, Times, Labels | None]) -> Array:
        image, eps, t, label = of
        error = _prediction_error(
            apply, params, sde, objective, x0=image, eps=eps, t=t, label=label
        )
        return jnp.mean(jnp.square(error), axis=(1, 2, 3))

    def in_parts(values: Array) -> Array:  # [part, image, ...], the first ones again
        filled = jnp.concatenate([values, values[: num_parts * part_size - count]])
        return filled.reshape(num_parts, part_size, *values.shape[1:])

    def at_level(level: Array) -> dict[str, Float[Array, "batch"]]:
        time_key, noise_key = jax.random.split(jax.random.fold_in(key, level))
        t = (level + sample_times(time_key, len(x0), sde, stratified)) / num_bins
        eps = jax.random.normal(noise_key, x0.shape)
        of = (x0, eps, t, label)
        if num_parts == 1:
            squared = squared_error(of)
        else:
            squared = jax.lax.map(squared_error, jax.tree.map(in_parts, of))
            squared = squared.reshape(-1)[:count]
        return {
            space: squared * jnp.square(error_factor(space, objective, sde, t))
            for space in loss_spaces
        }

    return jax.lax.map(at_level, jnp.arange(num_bins))


def drop_labels(
    key: PRNGKeyArray, label: Labels, null_label: int, rate: float
) -> Labels:
    """Replace each label by that for "no class" with probability rate.

    This is how a network learns both sides of classifier-free guidance at once
    (arXiv:2207.12598, Alg. 1).

    Args:
        key: Draws what is dropped.
        label: Labels below null_label.
        null_label: The label for "no class": the number of classes.
        rate: In [0, 1).

    Raises:
        InputError: The rate is no probability below 1.
    """
    if not 0 <= rate < 1:
        raise InputError(f"Labels are dropped at a rate in [0, 1), got {rate}.")
    dropped = jax.random.bernoulli(key, rate, label.shape)
    return jnp.where(dropped, null_label, label).astype(label.dtype)


def _prediction_error(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    objective: Objective,
    *,
    x0: Images,
    eps: Images,
    t: Times,
    label: Labels | None,
) -> Images:
    """The network's output less what it should be, for x0 noised by eps to time t."""
    x = add_noise(sde, x0, eps, t)
    output = apply(params, network_input(objective, sde, x, t), t, label)
    return output - prediction_target(objective, sde, x0, eps, t)
