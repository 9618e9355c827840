"""The loop of every sampler: one `lax.scan` over the steps of a solver."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from dig_jax.diffusion.prediction import WithVariance
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Denoiser, Images, Solver, VarianceDenoiser


class NoiseMix(NamedTuple):
    """Noise between that of two keys, for each image.

    w_1 n_1 + w_2 n_2 of independent standard normal n is standard normal where
    w_1^2 + w_2^2 = 1.

    Attributes:
        keys: The second key of each image, [batch].
        weights: Of the noise of its first key and its second, [batch, 2].
    """

    keys: Key[Array, "batch"]
    weights: Float[Array | np.ndarray, "batch 2"]


class Watch(NamedTuple):
    """What is kept of the images while they are drawn.

    Attributes:
        steps: After how many steps, ascending; 0 is the noise, and the last one is
            the number of steps of the solver.
        estimates: Keep not x but the denoiser's estimate of the image there,
            E[x0 | x]; at the end, where no step follows, the image itself.
    """

    steps: tuple[int, ...]
    estimates: bool = False


def sample(
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
    keys: Key[Array, "batch"],
    image_shape: tuple[int, int, int],
    *,
    sde: SDE,
    dtype: str = "float32",
    mix: NoiseMix | None = None,
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
        mix: Further keys, where the noise is to lie between that of two.

    Returns:
        Images at times[-1], about [-1, 1], not clipped.

    Raises:
        InputError: Not as many times as the solver has steps, and one more.
    """
    given = (denoise, solver, times, keys, image_shape)
    return _scan(*given, sde=sde, dtype=dtype, mix=mix)[0]


def sample_path(
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
    keys: Key[Array, "batch"],
    image_shape: tuple[int, int, int],
    *,
    sde: SDE,
    watch: Watch,
    dtype: str = "float32",
    mix: NoiseMix | None = None,
) -> Float[Array, "frame batch row col rgb"]:
    """What `sample` goes through, at the steps that are watched; the last is its end.

    The arguments are those of `sample`.

    Raises:
        InputError: Steps that are not ascending, or that end elsewhere than the solver.
    """
    given = (denoise, solver, times, keys, image_shape)
    frames = _scan(*given, sde=sde, dtype=dtype, mix=mix, watch=watch)[1]
    assert frames is not None  # as they are watched
    return frames


def _scan(
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
    keys: Key[Array, "batch"],
    image_shape: tuple[int, int, int],
    *,
    sde: SDE,
    dtype: str,
    mix: NoiseMix | None,
    watch: Watch | None = None,
) -> tuple[Images, Float[Array, "frame batch row col rgb"] | None]:
    """The images at the end, and what is kept on the way."""

    def draw_for(keys: Key[Array, "batch"], index: int | Array) -> Images:
        def draw_image(key: PRNGKeyArray) -> Float[Array, "row col rgb"]:
            return jax.random.normal(jax.random.fold_in(key, index), image_shape, dtype)

        return jax.vmap(draw_image)(keys)

    def draw(index: int | Array) -> Images:
        if mix is None:
            return draw_for(keys, index)
        first, second = jnp.asarray(mix.weights, dtype).T[..., None, None, None]
        return first * draw_for(keys, index) + second * draw_for(mix.keys, index)

    num_steps = len(times) - 1
    if num_steps != len(solver.evaluations):
        raise InputError(
            f"The solver takes {len(solver.evaluations)} steps and needs one time more,"
            f" got {len(times)} times: make them for len(solver.evaluations) steps."
        )
    t, s = jnp.asarray(times[:-1], dtype), jnp.asarray(times[1:], dtype)
    x = draw(0) * sde.prior_std * (sde.sigma(t[0]) / sde.sigma(jnp.ones_like(t[0])))

    def step(carry: tuple[Images, Any, Any], now: tuple[Array, ...]):
        x, state, frames = carry
        done, t, s, *place = now

        def noise(index: int = 0) -> Images:
            # 0 is the initial noise; draws of one step are num_steps apart.
            value = draw(1 + done + num_steps * index)
            return jnp.where(done == num_steps - 1, 0, value)

        if watch is None:
            return (*solver.step(denoise, x, state, t, s, noise), None), None
        told: list[Images] = []
        following = _telling(denoise, told) if watch.estimates else denoise
        after, state = solver.step(following, x, state, t, s, noise)
        kept = told[0] if watch.estimates else x
        frames = jax.lax.dynamic_update_index_in_dim(frames, kept, place[0], 0)
        return (after, state, frames), None

    steps, frames = [jnp.arange(num_steps), t, s], None
    if watch is not None:
        # A step that nobody asked for writes where the next one that somebody did will.
        steps.append(jnp.searchsorted(_check_steps(watch, num_steps), steps[0]))
        frames = jnp.zeros((len(watch.steps), *x.shape), dtype)
    (x, _, frames), _ = jax.lax.scan(step, (x, solver.init(x), frames), tuple(steps))
    return x, frames if frames is None else frames.at[-1].set(x)


def _check_steps(watch: Watch, num_steps: int) -> Array:
    """The steps that are watched."""
    steps = np.asarray(watch.steps, np.int32)
    if (
        not len(steps)
        or steps[-1] != num_steps
        or steps[0] < 0
        or (np.diff(steps) < 1).any()
    ):
        raise InputError(
            f"The steps to watch must ascend from 0 or later to the solver's last one, "
            f"{num_steps}, got {watch.steps}."
        )
    return jnp.asarray(steps)


def _telling(denoise: Denoiser, told: list[Images]) -> Denoiser:
    """A denoiser that lists its estimates; the first of a step is at its x."""

    def note(x0: Images) -> Images:
        told.append(x0)
        return x0

    if isinstance(denoise, VarianceDenoiser):
        learned = denoise

        def both(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
            x0, variance = learned.with_variance(x, t)
            return note(x0), variance

        return WithVariance(both)
    return lambda x, t: note(denoise(x, t))
