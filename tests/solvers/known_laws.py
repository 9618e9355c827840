"""Data whose diffusion is known in closed form, and solvers run on it."""

import inspect
import re
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.diffusion import create_sde
from dig_jax.interfaces import SDE
from dig_jax.solvers import SOLVERS


class Path(NamedTuple):
    """An SDE, the times between which logSNR is finite, and a grid that suits it."""

    sde: SDE
    t_start: float
    t_end: float
    grid: str


PATHS = {
    "vp_linear": Path(create_sde("vp_linear"), 1.0, 1e-3, "logsnr"),
    "flow": Path(create_sde("flow"), 0.999, 1e-3, "logsnr"),
    "edm": Path(create_sde("edm"), 1.0, 0.0, "karras"),
}


class Gaussian(NamedTuple):
    """Independent pixels N(mean, std^2) under an SDE."""

    sde: SDE
    mean: Any
    std: Any

    def mean_at(self, t):
        return self.sde.alpha(t) * self.mean

    def variance_at(self, t):
        return self.sde.alpha(t) ** 2 * self.std**2 + self.sde.sigma(t) ** 2

    def denoise(self, x, t):
        """E[x0 | x_t], the exact denoiser."""
        gain = self.sde.alpha(t) * self.std**2 / self.variance_at(t)
        return self.mean + gain * (x - self.mean_at(t))


class Mixture(NamedTuple):
    """Independent pixels, each of a mixture of normals: [row, component]."""

    weight: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def posterior_mean(self, x, alpha, sigma, xp: Any = jnp):
        """E[x0 | x = alpha x0 + sigma eps] for x [batch, row, col, rgb]."""
        weight, mean, std = (values[:, None, None] for values in self)
        variance = alpha**2 * std**2 + sigma**2
        offset = x[..., None] - alpha * mean
        density = xp.log(weight) - xp.log(variance) / 2 - offset**2 / (2 * variance)
        share = xp.exp(density - density.max(axis=-1, keepdims=True))
        share = share / share.sum(axis=-1, keepdims=True)
        means = mean + alpha * std**2 / variance * offset
        return (share * means).sum(axis=-1)

    def denoiser(self, sde):
        return lambda x, t: self.posterior_mean(x, sde.alpha(t), sde.sigma(t))


class Promise(NamedTuple):
    """What a solver says of itself: its order with some options, weak if random."""

    name: str
    options: dict[str, Any]
    order: int
    weak: bool


def promises() -> list[Promise]:
    """Of each entry of SOLVERS: every choice of its `order`, else its docstring's."""
    return [promise for name in sorted(SOLVERS) for promise in promises_of(name)]


def promises_of(name: str) -> list[Promise]:
    create = SOLVERS[name]
    if "order" in (known := inspect.signature(create).parameters):
        # The order far from the end, where some let it fall.
        options = {"lower_order_final": False} if "lower_order_final" in known else {}
        choices = get_args(get_type_hints(create)["order"])
        return [Promise(name, {"order": k, **options}, k, False) for k in choices]
    said = re.search(r"(weak )?order (\d)", inspect.getdoc(create) or "")
    assert said, f"The docstring of {name} must say its order, as in 'weak order 1'."
    return [Promise(name, {}, int(said[2]), said[1] is not None)]


def solve(solver, denoise, times, x, noise=None):
    """The scan of a sampler from a given x, with given noise for each step."""
    noise = jnp.zeros((len(times) - 1, *x.shape)) if noise is None else noise

    @jax.jit
    def run(x, noise):
        def step(carry, now):
            x, state = carry
            t, s, z = now
            return solver.step(denoise, x, state, t, s, lambda index=0: z), None

        steps = (jnp.asarray(times[:-1]), jnp.asarray(times[1:]), noise)
        (x, _), _ = jax.lax.scan(step, (x, solver.init(x)), steps)
        return x

    return run(jnp.asarray(x), jnp.asarray(noise))


def end_law(solver, denoise, times, mean, variance):
    """Mean and variance of a pixel at times[-1] that starts with these at times[0].

    Without sampling error, for a denoiser that is affine in x: then so is the end in
    the start and in each step's noise, and images that start from 0, from 1, or meet a
    noise of 1 in a single step give the coefficients.
    """
    num_steps = len(times) - 1
    units = np.eye(num_steps + 2)[1:, :, None, None, None]
    ends = np.asarray(solve(solver, denoise, times, units[0], units[1:])).ravel()
    slopes = ends[1:] - ends[0]
    return ends[0] + slopes[0] * mean, variance * slopes[0] ** 2 + sum(slopes[1:] ** 2)
