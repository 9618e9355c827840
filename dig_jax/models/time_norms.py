"""Norms whose scale and shift depend on time (DiMR, arXiv:2406.09416, Sec. 4.2).

Features are [batch, token, width], or [batch * token, width] for one image after the
other.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.models.layers import LayerNorm

Rows = Float[Array, "*rows width"]
Tau = Float[Array, "batch"]
PerImage = Float[Array, "batch width"]


class TimeDependent(nn.Module):
    """s p0 + (1 - s) p1 with s = sigmoid((1 + omega) tau + beta), channel by channel.

    Eq. 5 with vectors for its two scalars, and 1 + omega for the first of them, as in
    the authors' code. p0 and p1 start alike: a new network does not know the time.
    """

    width: int
    start: float

    @nn.compact
    def __call__(self, tau: Tau) -> PerImage:
        shape = (self.width,)
        start = nn.initializers.constant(self.start)
        p0, p1 = (self.param(name, start, shape) for name in ("p0", "p1"))
        omega = self.param("omega", nn.initializers.zeros, shape)
        beta = self.param("beta", nn.initializers.zeros, shape)
        s = jax.nn.sigmoid((1 + omega) * tau[:, None] + beta)
        return s * p0 + (1 - s) * p1


class TimeLayerNorm(nn.Module):
    """TD-LN: layer norm, times a scale and plus a shift that depend on time."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, h: Rows, tau: Tau) -> Rows:
        width = h.shape[-1]
        scale = TimeDependent(width, 1.0, name="scale")(tau)
        shift = TimeDependent(width, 0.0, name="shift")(tau)
        y = LayerNorm(self.epsilon, affine=False)(h.astype(jnp.float32))
        y = y.reshape(len(tau), -1, width) * scale[:, None] + shift[:, None]
        return y.reshape(h.shape).astype(h.dtype)


class TimeRMSNorm(nn.Module):
    """h / (rms(h) + epsilon), times a scale that depends on time: the released norm."""

    epsilon: float = 1e-8

    @nn.compact
    def __call__(self, h: Rows, tau: Tau) -> Rows:
        width = h.shape[-1]
        scale = TimeDependent(width, 1.0, name="scale")(tau)
        y = _over_rms(h, self.epsilon).reshape(len(tau), -1, width) * scale[:, None]
        return y.reshape(h.shape).astype(h.dtype)


class RMSNorm(nn.Module):
    """h / (rms(h) + epsilon), times a scale; it takes the time and leaves it."""

    epsilon: float = 1e-8

    @nn.compact
    def __call__(self, h: Rows, _: Tau) -> Rows:
        scale = self.param("scale", nn.initializers.ones, (h.shape[-1],))
        return (_over_rms(h, self.epsilon) * scale).astype(h.dtype)


def _over_rms(h: Rows, epsilon: float) -> Rows:
    y = h.astype(jnp.float32)
    square = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    # A row of zeros shall have no gradient that is not a number.
    rms = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return y / (rms + epsilon)
