"""The state of a training run."""

from typing import Any, NamedTuple

from jaxtyping import Array, Int

from dig_jax.interfaces import Params


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
        step: Number of steps done.
        params: Parameters, float32.
        ema: Exponential moving average of the parameters, float32.
        opt_state: State of the optax optimizer.
        bad_steps: Steps in a row whose loss or gradient was not finite.
        power_ema: Averages for post-hoc EMA, float32; () in a run that keeps none.
    """

    step: Int[Array, ""]
    params: Params
    ema: Params
    opt_state: Any
    bad_steps: Int[Array, ""]
    power_ema: tuple[Params, ...] = ()
