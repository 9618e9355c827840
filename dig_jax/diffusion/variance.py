"""The loss of a learned variance: L_vlb of Improved DDPM (arXiv:2102.09672, Eq. 4-7).

A network that says nothing but x0 draws with a variance that was chosen for it. One
that also says where the log of the variance lies, between the least and the greatest
that it may be (Eq. 15), learns that from a bound on the likelihood of the data.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr
from jaxtyping import Array, Float

from dig_jax.diffusion.discrete import VPDiscrete
from dig_jax.diffusion.prediction import per_image
from dig_jax.interfaces import Images, Times

HALF_BIN = 1 / 255
"""Half the distance between two of 256 bytes, where they span [-1, 1]."""
LAST_BIN = 0.999
"""Beyond it lies the outermost byte, whose bin has no end."""
LEAST_SHARE = 1e-12
"""Of a bin, whose logarithm is taken."""


class Steps(NamedTuple):
    """Constants of the steps n = 1 ... N of a chain; the first entry of each is n = 1.

    Attributes:
        log_least: Log of the variance of q(x_(n-1) | x_n, x0); that of n = 1, which is
            0, is taken from n = 2.
        log_range: Log of the greatest variance, beta_n, over the least.
        of_x0: Weight of x0 in the mean of q(x_(n-1) | x_n, x0).
    """

    log_least: Float[np.ndarray, "step"]
    log_range: Float[np.ndarray, "step"]
    of_x0: Float[np.ndarray, "step"]


def steps_of(sde: VPDiscrete) -> Steps:
    """The constants of a chain, in float64."""
    log_alpha = sde.log_alphas
    beta = -np.expm1(2 * np.diff(log_alpha))
    noise = -np.expm1(2 * log_alpha)  # sigma^2, 0 at n = 0
    least = noise[:-1] / noise[1:] * beta
    least[0] = least[1]
    of_x0 = np.exp(log_alpha[:-1]) * beta / noise[1:]
    return Steps(np.log(least), np.log(beta / least), of_x0)


def variance_bound(
    sde: VPDiscrete, x0: Images, estimate: Images, said: Images, t: Times
) -> Float[Array, "batch"]:
    """N times the part of L_vlb of each image's step, in bits a dimension.

    At steps that are drawn evenly its mean is L_vlb, but for the prior's part, which no
    parameter changes. The part of a step n > 1 is the divergence of the network's step
    back, N(mean of q(x_(n-1) | x_n, estimate), variance), from q(x_(n-1) | x_n, x0).
    That of n = 1 is -log p(x0 | x_1) of bytes: a Gaussian's mass in the bin of each.

    Args:
        sde: The chain.
        x0: Clean images in [-1, 1]. Latents, which are no bytes, are read so too at
            n = 1, as published networks were trained.
        estimate: The network's E[x0 | x_t].
        said: What it says of the variance; see `VarianceFn`.
        t: n / N of each image, with n from 1 to N.
    """
    steps = steps_of(sde)
    n = jnp.rint(t * sde.num_steps).astype(jnp.int32)
    place = jnp.clip(n, 1, sde.num_steps) - 1
    log_least, log_range, of_x0 = (
        per_image(jnp.asarray(table, jnp.float32)[place]) for table in steps
    )
    wider = (1 + said) / 2 * log_range
    log_variance = log_least + wider
    moved = jnp.square(of_x0 * (x0 - estimate))
    divergence = (wider + jnp.expm1(-wider) + moved * jnp.exp(-log_variance)) / 2
    surprise = -_log_mass(x0, estimate, log_variance)
    is_first = (n == 1)[:, None, None, None]
    nats = jnp.where(is_first, surprise, divergence)
    return sde.num_steps * jnp.mean(nats, axis=(1, 2, 3)) / np.log(2)


def _log_mass(x0: Images, mean: Images, log_variance: Images) -> Images:
    """Log of the mass of N(mean, variance) in each byte's bin."""
    scale = jnp.exp(-log_variance / 2)
    above = scale * (x0 + HALF_BIN - mean)
    below = scale * (x0 - HALF_BIN - mean)
    inside = jnp.log(jnp.maximum(ndtr(above) - ndtr(below), LEAST_SHARE))
    outer = jnp.where(x0 > LAST_BIN, log_ndtr(-below), inside)
    return jnp.where(x0 < -LAST_BIN, log_ndtr(above), outer)
