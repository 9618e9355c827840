"""The loop of every sampler: one `lax.scan` over the steps of a solver."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Denoiser, Images, Solver


def sample(
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
    keys: Key[Array, "batch"],
    image_shape: tuple[int, int, int],
    *,
    sde: SDE,
    dtype: str = "float32",
) -> Images:
    """Draw one image for each key, from noise at times[0] down to times[-1].

    All that is random in an image comes from its own key, so an image does not depend
    on which others are drawn with it. The last step adds no noise. The first x is noise
    of standard deviation `sde.prior_std` at t = 1, less before as sigma is.

    Args:
        denoise: E[x0 | x_t].
        solver: An entry of SOLVERS.
        times: From `create_times`: descending, one step of the solver between each two.
        keys: One key for each image, [batch].
        image_shape: (row, col, rgb).
        sde: The forward process that the solver inverts.
        dtype: Of the sampler's state.

    Returns:
        Images at times[-1], about [-1, 1], not clipped.

    Raises:
        InputError: Not as many times as the solver has steps, and one more.
    """

    def draw(index: int | Array) -> Images:
        def draw_image(key: PRNGKeyArray) -> Float[Array, "row col rgb"]:
            return jax.random.normal(jax.random.fold_in(key, index), image_shape, dtype)

        return jax.vmap(draw_image)(keys)

    num_steps = len(times) - 1
    if num_steps != len(solver.evaluations):
        raise InputError(
            f"The solver takes {len(solver.evaluations)} steps and needs one time more,"
            f" got {len(times)} times: make them for len(solver.evaluations) steps."
        )
    t, s = jnp.asarray(times[:-1], dtype), jnp.asarray(times[1:], dtype)
    x = draw(0) * sde.prior_std * (sde.sigma(t[0]) / sde.sigma(jnp.ones_like(t[0])))

    def step(carry: tuple[Images, Any], now: tuple[Array, Array, Array]):
        x, state = carry
        done, t, s = now

        def noise(index: int = 0) -> Images:
            # 0 is the initial noise; draws of one step are num_steps apart.
            value = draw(1 + done + num_steps * index)
            return jnp.where(done == num_steps - 1, 0, value)

        return solver.step(denoise, x, state, t, s, noise), None

    steps = (jnp.arange(num_steps), t, s)
    (x, _), _ = jax.lax.scan(step, (x, solver.init(x)), steps)
    return x
