"""AdamW with the paper's warm-up (Table 4), and the average of parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from dig_jax.interfaces import Params
from dig_jax.options import OptimizerOptions

NO_DECAY = ("bias", "scale", "position", "omega", "beta")


def create_optimizer(
    options: OptimizerOptions | None = None, *, num_steps: int
) -> optax.GradientTransformation:
    """AdamW; biases, norms and position embeddings are not decayed.

    Args:
        options: Rates, decays and clipping; None for the defaults.
        num_steps: Length of the training, for the cosine schedule.
    """
    options = options or OptimizerOptions()
    adamw = optax.adamw(
        create_learning_rate(options, num_steps=num_steps),
        b1=options.betas[0],
        b2=options.betas[1],
        weight_decay=options.weight_decay,
        mask=decay_mask,
    )
    if options.max_grad_norm:
        clip = optax.clip_by_global_norm(options.max_grad_norm)
        return optax.chain(clip, adamw)
    return adamw


def create_learning_rate(
    options: OptimizerOptions, *, num_steps: int
) -> optax.Schedule:
    """The rate of an update by the number of those before it; from 0 up to its peak."""
    peak, warmup_steps = options.learning_rate, options.warmup_steps
    decay_steps = max(num_steps - warmup_steps, 1)
    after = (
        optax.constant_schedule(peak)
        if options.schedule == "constant"
        else optax.cosine_decay_schedule(peak, decay_steps)
    )
    warmup = optax.linear_schedule(0.0, peak, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def count_updates(opt_state: optax.OptState) -> int:
    """How many updates an optimizer of `create_optimizer` has made."""
    return int(optax.tree.get(opt_state, "ScaleByScheduleState").count)


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
