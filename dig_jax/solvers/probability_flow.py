"""The probability-flow ODE of any path x_t = alpha x0 + sigma eps (arXiv:2011.13456).

Everything is written through D = E[x0 | x_t], so that nothing divides by alpha: it also
holds where x_t is noise alone.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.interfaces import SDE, Images


def noise_estimate(sde: SDE, x: Images, x0: Images, t: Float[Array, ""]) -> Images:
    """E[eps | x_t] = (x - alpha D) / sigma, from x0 = D."""
    return (x - sde.alpha(t) * x0) / sde.sigma(t)


def velocity(sde: SDE, x: Images, x0: Images, t: Float[Array, ""]) -> Images:
    """dx/dt = alpha' D + sigma' E[eps | x_t], from x0 = D (arXiv:2303.08797).

    The same as f x - g^2 score / 2, but finite where f and g are not.
    """
    one = jnp.ones_like(t)
    _, alpha_rate = jax.jvp(sde.alpha, (t,), (one,))
    _, sigma_rate = jax.jvp(sde.sigma, (t,), (one,))
    return alpha_rate * x0 + sigma_rate * noise_estimate(sde, x, x0, t)
