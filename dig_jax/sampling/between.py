"""Images between two: between two noises, and between two labels."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dig_jax.diffusion.prediction import WithVariance, per_image
from dig_jax.interfaces import Denoiser, Images, VarianceDenoiser
from dig_jax.solvers.sample import NoiseMix


class Between(NamedTuple):
    """Where each image lies between two ends; its own key and label are the first.

    Attributes:
        mix: The second key of each, and how much of both noises it has.
        labels: The second label of each, [batch]; None where the first is the only one.
        part: How far each is from the first label to the second, 0 to 1, [batch].
    """

    mix: NoiseMix
    labels: Any
    part: Any


def noise_weights(
    part: Float[np.ndarray, "batch"],
) -> Float[np.ndarray, "batch 2"]:
    """Weights cos(part pi/2), sin(part pi/2) of two independent noises.

    Their squares' sum is 1, so what lies between is noise of the same law, on the arc
    that spherical interpolation (slerp) takes between orthogonal vectors, as vectors of
    noise nearly are. Both ends are exact.

    Args:
        part: 0 for the first noise alone, 1 for the second.
    """
    part = np.asarray(part, np.float64)
    both = np.stack([1 - part, part], axis=-1)  # the sine alone is exact at both ends
    return np.sin(both * (np.pi / 2)).astype(np.float32)


def make_mixed_denoiser(
    first: Denoiser, second: Denoiser, part: Float[Array, "batch"]
) -> Denoiser:
    """D = (1 - part) D_first + part D_second; a learned variance is mixed alike.

    The score is affine in D, so at each noise level this is the score of
    p_first^(1 - part) p_second^part, but for a factor. Both ends are exact.

    Args:
        first: E[x0 | x_t] of the first label.
        second: That of the second.
        part: Of each image, 0 to 1.
    """
    there = per_image(jnp.asarray(part, jnp.float32))

    def mix(one: Images, other: Images) -> Images:
        weight = there.astype(one.dtype)
        return (1 - weight) * one + weight * other

    if isinstance(first, VarianceDenoiser) and isinstance(second, VarianceDenoiser):
        one, other = first, second

        def both(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
            (x0, variance), (x0_there, variance_there) = (
                denoise.with_variance(x, t) for denoise in (one, other)
            )
            return mix(x0, x0_there), mix(variance, variance_there)

        return WithVariance(both)
    return lambda x, t: mix(first(x, t), second(x, t))
