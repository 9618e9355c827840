"""AdamW with the paper's warm-up (Table 4), and the average of parameters."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from dig_jax.errors import InputError
from dig_jax.interfaces import Params

NO_DECAY = ("bias", "scale", "position", "omega", "beta")


def create_optimizer(
    *,
    num_steps: int,
    learning_rate: PositiveFloat = 2e-4,
    warmup_steps: NonNegativeInt = 2500,
    schedule: Literal["constant", "cosine"] = "constant",
    weight_decay: NonNegativeFloat = 0.03,
    betas: tuple[float, float] = (0.99, 0.999),
    max_grad_norm: NonNegativeFloat = 0.0,
) -> optax.GradientTransformation:
    """AdamW; biases, norms and position embeddings are not decayed.

    Args:
        num_steps: Length of the training, for the cosine schedule.
        learning_rate: After the warm-up.
        warmup_steps: Steps of linear warm-up from 0.
        schedule: `constant` after the warm-up, or `cosine` down to 0 at num_steps.
        weight_decay: Decoupled, times the learning rate.
        betas: Decay of the first and second moment, in [0, 1).
        max_grad_norm: Clip the gradient to this global norm; 0 for no clipping.

    Raises:
        InputError: betas outside [0, 1).
    """
    if not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"optimizer.betas must lie in [0, 1), got {betas}.")
    decay_steps = max(num_steps - warmup_steps, 1)
    after = (
        optax.constant_schedule(learning_rate)
        if schedule == "constant"
        else optax.cosine_decay_schedule(learning_rate, decay_steps)
    )
    warmup = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    rate = optax.join_schedules([warmup, after], [warmup_steps])
    adamw = optax.adamw(
        rate,
        b1=betas[0],
        b2=betas[1],
        weight_decay=weight_decay,
        mask=decay_mask,
    )
    if max_grad_norm:
        return optax.chain(optax.clip_by_global_norm(max_grad_norm), adamw)
    return adamw


def decay_mask(params: Params) -> Params:
    """True for the parameters that weight decay applies to, by their names."""

    def decays(path: tuple, _: Any) -> bool:
        return not str(path[-1].key).endswith(NO_DECAY)

    return jax.tree_util.tree_map_with_path(decays, params)


def update_ema(
    ema: Params, params: Params, step: Int[Array, ""], decay: float
) -> Params:
    """Exponential moving average with a warm-up.

    The decay of step n (from 0) is min(decay, (1 + n) / (10 + n)), so that the random
    start does not rule the average of a short run.
    """
    n = step.astype(jnp.float32)
    rate: Float[Array, ""] = jnp.minimum(decay, (1 + n) / (10 + n))
    return jax.tree.map(lambda e, p: e + (1 - rate) * (p - e), ema, params)
