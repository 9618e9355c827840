"""RePaint: known pixels put into each step, and steps taken again (arXiv:2201.09865).

It is a solver made of a solver, whose times run up as well as down, so it is run by the
one scan of `sample`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver, Time


def remembers_nothing(solver: Solver) -> bool:
    """Whether a solver's steps know nothing of those before, as RePaint needs it."""
    x = jax.ShapeDtypeStruct((1, 1, 1, 1), "float32")
    return not jax.tree.leaves(jax.eval_shape(solver.init, x))


def jump_path(
    num_steps: int, *, jump: int, resamplings: int
) -> Int[np.ndarray, "time"]:
    """Which time of a grid comes when: from the first to the last, with jumps back.

    From every `jump`-th time, counted from the last one, sampling goes back by `jump`
    steps and comes down again, until it came down `resamplings` times (App. B).

    Args:
        num_steps: Steps of the grid, which has one time more.
        jump: How many steps to go back, at once.
        resamplings: 1 for no jumps.

    Raises:
        InputError: A jump that is longer than the grid.
    """
    if jump >= num_steps:
        raise InputError(
            f"RePaint jumps back within the steps, fewer than sample.num_steps="
            f"{num_steps}, got sample.inpaint_jump={jump}."
        )
    left = dict.fromkeys(range(0, num_steps - jump, jump), resamplings - 1)
    above, path = num_steps, [0]
    while above:
        above -= 1
        path.append(num_steps - above)
        if left.get(above):
            left[above] -= 1
            above += jump
            path.append(num_steps - above)
    return np.array(path)


def repaint(
    solver: Solver,
    sde: SDE,
    known: Float[Array, "row col rgb"],
    drawn: Bool[Array, "row col 1"],
    path: Int[np.ndarray, "time"],
) -> Solver:
    """A solver's steps, the known pixels of each replaced by alpha_s k + sigma_s eps.

    Where the path goes back to a noisier time, x_t is drawn from q(x_t | x_s).

    What is drawn has the law of the unknown pixels given the known ones, whatever the
    images' law, as the part of the time that a jump spans goes to 0, and while it does
    both the steps in a jump and the resamplings of it go to infinity. Without jumps it
    has not, however many steps there are.

    Args:
        solver: One that `remembers_nothing`.
        sde: The forward process.
        known: The image k, in [-1, 1], looked at where it is known alone.
        drawn: True where it is not known.
        path: From `jump_path`; sample at `times[path]`.
    """

    def down(denoise: Denoiser, x: Images, t: Time, s: Time, noise: Noise) -> Images:
        x, _ = solver.step(denoise, x, solver.init(x), t, s, noise)
        return jnp.where(drawn, x, sde.alpha(s) * known + sde.sigma(s) * noise(1))

    def back(x: Images, t: Time, s: Time, noise: Noise) -> Images:
        forgotten = -jnp.expm1(sde.logsnr(s) - sde.logsnr(t))
        kept = sde.alpha(s) / sde.alpha(t)
        return kept * x + sde.sigma(s) * jnp.sqrt(forgotten) * noise()

    def step(
        denoise: Denoiser, x: Images, state: tuple[()], t: Time, s: Time, noise: Noise
    ) -> tuple[Images, tuple[()]]:
        x = jax.lax.cond(
            s < t,
            lambda: down(denoise, x, t, s, noise),
            lambda: back(x, t, s, noise),
        )
        return x, state

    evaluations = np.asarray(solver.evaluations)[path[:-1].clip(max=path.max() - 1)]
    evaluations = np.where(np.diff(path) > 0, evaluations, 0)
    return Solver(init=lambda x: (), step=step, evaluations=tuple(evaluations.tolist()))
