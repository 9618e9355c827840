"""One step of training, as a pure function of state and batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dig_jax.diffusion import (
    NUM_NOISE_LEVELS,
    PerImage,
    add_noise,
    draw_times_and_noise,
    drop_labels,
    loss_by_noise_level,
    loss_of_draws,
    network_input,
)
from dig_jax.experiment import Experiment
from dig_jax.interfaces import Labels, Params
from dig_jax.metrics.feature_diversity import feature_diversity
from dig_jax.options import GradientDType
from dig_jax.storage.power_ema import start_power_ema, update_power_ema
from dig_jax.storage.state import TrainState
from dig_jax.training.clean import clean_images
from dig_jax.training.gradient import Rows, loss_and_gradient
from dig_jax.training.optimizer import update_ema

StepMetrics: TypeAlias = dict[str, Array]
TrainStep: TypeAlias = Callable[
    [TrainState, UInt8[Array, "batch row col rgb"], Int[Array, "batch"]],
    tuple[TrainState, StepMetrics],
]

NO_STEP = np.uint32(2**31)
"""What a key is folded with that belongs to no step, whose number is an int32."""


def create_state(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    posthoc_ema: bool = False,
) -> TrainState:
    """The state before the first step; with the averages for post-hoc EMA if asked."""
    params = experiment.backbone.init(key)
    return start_from(params, optimizer, posthoc_ema=posthoc_ema)


def start_from(
    params: Params, optimizer: optax.GradientTransformation, *, posthoc_ema: bool
) -> TrainState:
    """The state before the first step with these parameters; see `create_state`."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        bad_steps=jnp.zeros((), jnp.int32),
        power_ema=start_power_ema(params) if posthoc_ema else (),
    )


def make_train_step(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    run_key: PRNGKeyArray,
    ema_decay: float,
    *,
    mesh: Mesh | None = None,
    num_parts: int = 1,
    gradient_dtype: GradientDType = "float32",
) -> TrainStep:
    """A step: loss and gradient, AdamW, averages of the parameters.

    The step's randomness comes from `fold_in(run_key, step)` over the global batch, so
    it is the same after a restart and on any number of devices. A step whose loss,
    gradient or update is not finite changes nothing but the step's number; `bad_steps`
    counts how many of them came in a row.

    The state and the batch are spread over a mesh as `dig_jax.devices.sharding` has
    it; without one they are on one device. See `loss_and_gradient` for the last three
    arguments.

    The metrics are scalars, but for `noise_level_loss` and `noise_level_images`: the
    sum of the losses and the number of the images in each tenth of the times.
    """
    backbone, objective = experiment.backbone, experiment.objective
    outputs = backbone.outputs
    if objective.variance_loss:
        assert backbone.with_variance is not None, "the experiment is checked"
        outputs = backbone.with_variance

    def train_step(
        state: TrainState,
        image: UInt8[Array, "batch row col rgb"],
        label: Int[Array, "batch"],
    ) -> tuple[TrainState, StepMetrics]:
        step_key = jax.random.fold_in(run_key, state.step)
        flip_key, loss_key = jax.random.split(step_key)
        x0 = clean_images(flip_key, image, experiment.data)
        given = _given_labels(experiment, step_key, label)

        draws = draw_times_and_noise(loss_key, x0, experiment.sde, objective)

        def loss_of(params: Params, rows: Rows) -> tuple[Float[Array, ""], PerImage]:
            x0, label, draws = rows
            return loss_of_draws(
                outputs, params, experiment.sde, draws, x0, label, objective=objective
            )

        (loss, per_image), grads = loss_and_gradient(
            loss_of,
            state.params,
            (x0, given, draws),
            mesh=mesh,
            num_parts=num_parts,
            gradient_dtype=gradient_dtype,
        )
        state, norms = _take_update(state, loss, grads, optimizer, ema_decay)
        metrics = {"loss": loss, **norms, "bad_steps": state.bad_steps}
        return state, metrics | _noise_levels(per_image)

    return train_step


def _noise_levels(per_image: PerImage) -> StepMetrics:
    """The metrics that are no scalars; see `make_train_step`."""
    level_loss, level_images = loss_by_noise_level(
        per_image.loss, per_image.t, NUM_NOISE_LEVELS
    )
    return {"noise_level_loss": level_loss, "noise_level_images": level_images}


def _take_update(
    state: TrainState,
    loss: Float[Array, ""],
    grads: Params,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
) -> tuple[TrainState, StepMetrics]:
    """The next state, with parameters as they were if anything is not finite; norms."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    grad_norm = optax.tree.norm(grads)
    update_norm = optax.tree.norm(updates)
    finite = jnp.isfinite(loss + grad_norm + update_norm)
    params = optax.apply_updates(state.params, updates)
    ema = update_ema(state.ema, params, state.step, ema_decay)
    new = TrainState(
        step=state.step + 1,
        params=params,
        ema=ema,
        opt_state=opt_state,
        bad_steps=jnp.zeros((), jnp.int32),
        power_ema=update_power_ema(state.power_ema, params, state.step + 1),
    )
    unchanged = state._replace(step=new.step, bad_steps=state.bad_steps + 1)
    state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, unchanged)
    return state, {"grad_norm": grad_norm, "update_norm": update_norm}


def _given_labels(
    experiment: Experiment, step_key: PRNGKeyArray, label: Labels
) -> Labels | None:
    """The labels that the network is shown: some are dropped where that is asked."""
    num_classes = experiment.backbone.num_classes
    rate = experiment.objective.label_dropout
    if num_classes == 0:
        return None
    if rate == 0:
        return label
    # Not 0 or 1: those are the keys that split(step_key) gives.
    drop_key = jax.random.fold_in(step_key, 2)
    return drop_labels(drop_key, label, num_classes, rate)


def make_measure_diversity(
    experiment: Experiment, run_key: PRNGKeyArray
) -> Callable[[TrainState, Array, Array], Float[Array, "block"]]:
    """Feature diversity after each block, on noised images at times spread over [0, 1].

    Returns:
        `(state, image uint8, label) -> [block]`.
    """
    backbone, sde = experiment.backbone, experiment.sde

    def measure(
        state: TrainState,
        image: UInt8[Array, "batch row col rgb"],
        label: Int[Array, "batch"],
    ) -> Float[Array, "block"]:
        t = (jnp.arange(len(image)) + 0.5) / len(image)
        key = jax.random.fold_in(run_key, NO_STEP)
        x0 = clean_images(key, image, replace(experiment.data, random_flip=False))
        eps = jax.random.normal(key, x0.shape)
        x = network_input(experiment.objective, sde, add_noise(sde, x0, eps, t), t)
        given = label if backbone.num_classes else None
        return feature_diversity(backbone.features(state.params, x, t, given))

    return measure
