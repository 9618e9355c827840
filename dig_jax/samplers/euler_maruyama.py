"""Euler-Maruyama on the reverse SDE (arXiv:2011.13456, Eq. 6)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.interfaces import SDE, Denoiser, Images, Noise, Solver


def euler_maruyama(sde: SDE, num_steps: int) -> Solver:
    """dx = [f x - g^2 score] dt + g dw, backwards in time; weak order 1.

    The score is (alpha E[x0 | x] - x) / sigma^2.
    """

    def step(
        denoise: Denoiser,
        x: Images,
        state: tuple[()],
        t: Float[Array, ""],
        s: Float[Array, ""],
        noise: Noise,
    ) -> tuple[Images, tuple[()]]:
        score = (sde.alpha(t) * denoise(x, t) - x) / jnp.square(sde.sigma(t))
        reverse_drift = sde.drift(t) * x - jnp.square(sde.diffusion(t)) * score
        x = x + (s - t) * reverse_drift
        return x + jnp.sqrt(t - s) * sde.diffusion(t) * noise(), state

    return Solver(init=lambda x: (), step=step, evaluations=(1,) * num_steps)
