"""The probability-flow ODE of any path x_t = alpha x0 + sigma eps (arXiv:2011.13456).

In r = sigma / alpha it is d(x / alpha) / dr = E[eps | x_t] (arXiv:2206.00364, Eq. 1 and
Sec. 3), written through D = E[x0 | x_t].
"""

from jaxtyping import Array, Float

from dig_jax.interfaces import SDE, Images


def noise_estimate(sde: SDE, x: Images, x0: Images, t: Float[Array, ""]) -> Images:
    """E[eps | x_t] = (x - alpha D) / sigma, from x0 = D."""
    return (x - sde.alpha(t) * x0) / sde.sigma(t)
