"""One step of training, as a pure function of state and batch."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dig_jax.data.transforms import random_flip, to_unit_range
from dig_jax.diffusion import simple_loss
from dig_jax.experiment import Experiment
from dig_jax.interfaces import Params
from dig_jax.metrics.feature_diversity import feature_diversity
from dig_jax.training.optimizer import update_ema
from dig_jax.training.state import TrainState

StepMetrics: TypeAlias = dict[str, Array]
TrainStep: TypeAlias = Callable[
    [TrainState, UInt8[Array, "batch row col rgb"], Int[Array, "batch"]],
    tuple[TrainState, StepMetrics],
]


def create_state(
    experiment: Experiment, optimizer: optax.GradientTransformation, key: PRNGKeyArray
) -> TrainState:
    """The state before the first step."""
    params = experiment.backbone.init(key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        bad_steps=jnp.zeros((), jnp.int32),
    )


def make_train_step(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    run_key: PRNGKeyArray,
    ema_decay: float,
) -> TrainStep:
    """A step: loss and gradient, AdamW, EMA.

    The step's randomness comes from `fold_in(run_key, step)` over the global batch, so
    it is the same after a restart and on any number of devices. A step whose loss,
    gradient or update is not finite changes nothing but the step's number; `bad_steps`
    counts how many of them came in a row.
    """
    backbone, objective = experiment.backbone, experiment.objective

    def train_step(
        state: TrainState,
        image: UInt8[Array, "batch row col rgb"],
        label: Int[Array, "batch"],
    ) -> tuple[TrainState, StepMetrics]:
        flip_key, loss_key = jax.random.split(jax.random.fold_in(run_key, state.step))
        x0 = to_unit_range(image)
        if experiment.data.random_flip:
            x0 = random_flip(flip_key, x0)

        def loss_of(params: Params) -> Float[Array, ""]:
            return simple_loss(
                backbone.apply,
                params,
                experiment.sde,
                loss_key,
                x0,
                label if backbone.num_classes else None,
                prediction=objective.prediction,
                loss_space=objective.loss_space,
                times=objective.times,
            )

        loss, grads = jax.value_and_grad(loss_of)(state.params)
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
        )
        unchanged = state._replace(step=new.step, bad_steps=state.bad_steps + 1)
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, unchanged)
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "update_norm": update_norm,
            "bad_steps": state.bad_steps,
        }
        return state, metrics

    return train_step


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
        x0 = to_unit_range(image)
        eps = jax.random.normal(run_key, x0.shape)
        per_image = (slice(None), None, None, None)
        x = sde.alpha(t)[per_image] * x0 + sde.sigma(t)[per_image] * eps
        given = label if backbone.num_classes else None
        return feature_diversity(backbone.features(state.params, x, t, given))

    return measure
