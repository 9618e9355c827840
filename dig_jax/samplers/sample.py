"""The loop of every sampler: one `lax.scan` over the steps of a solver."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from dig_jax.errors import InputError
from dig_jax.interfaces import Denoiser, Images, Solver


def uniform_times(
    num_steps: int, t_start: float = 1.0, t_end: float = 1e-3
) -> Float[np.ndarray, "time"]:
    """num_steps + 1 times from t_start down to t_end, equally spaced.

    Raises:
        InputError: No steps, or times that do not run down within [0, 1].
    """
    if num_steps < 1:
        raise InputError(f"A sampler needs at least 1 step, got {num_steps}.")
    if not 0 <= t_end < t_start <= 1:
        raise InputError(
            f"Sampling runs from t_start down to t_end within [0, 1], got "
            f"t_start={t_start}, t_end={t_end}."
        )
    return np.linspace(t_start, t_end, num_steps + 1)


def sample(
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
    keys: Key[Array, "batch"],
    image_shape: tuple[int, int, int],
    dtype: str = "float32",
) -> Images:
    """Draw one image for each key, from noise at times[0] down to times[-1].

    All that is random in an image comes from its own key, so an image does not depend
    on which others are drawn with it. The last step adds no noise.

    Args:
        denoise: E[x0 | x_t].
        solver: An entry of SOLVERS.
        times: Descending; one step between each two.
        keys: One key for each image, [batch].
        image_shape: (row, col, rgb).
        dtype: Of the sampler's state.

    Returns:
        Images at times[-1], about [-1, 1], not clipped.
    """

    def draw(index: int | Array) -> Images:
        def draw_image(key: PRNGKeyArray) -> Float[Array, "row col rgb"]:
            return jax.random.normal(jax.random.fold_in(key, index), image_shape, dtype)

        return jax.vmap(draw_image)(keys)

    num_steps = len(times) - 1
    x = draw(0)

    def step(carry: tuple[Images, Any], now: tuple[Array, Array, Array]):
        x, state = carry
        done, t, s = now

        def noise(index: int = 0) -> Images:
            # 0 is the initial noise; draws of one step are num_steps apart.
            value = draw(1 + done + num_steps * index)
            return jnp.where(done == num_steps - 1, 0, value)

        return solver.step(denoise, x, state, t, s, noise), None

    t, s = jnp.asarray(times[:-1], dtype), jnp.asarray(times[1:], dtype)
    steps = (jnp.arange(num_steps), t, s)
    (x, _), _ = jax.lax.scan(step, (x, solver.init(x)), steps)
    return x
