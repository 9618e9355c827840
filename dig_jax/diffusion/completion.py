"""The denoiser of images some of whose pixels are known (inpainting).

If x0 given x_t is Gaussian, with mean D(x_t) and covariance V, then knowing the pixels
K of x0 to be k moves its mean to

    D + V_K (V_KK)^-1 (k - D_K),

V_K being the columns of V for the pixels K. By Tweedie's second formula V is
sigma^2 / alpha times the Jacobian J of D (arXiv:2310.06721, Eq. 11; arXiv:2405.13712,
Eq. 16); the factor cancels, so all that is needed is products with J, transposed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dig_jax.interfaces import Denoiser, Images

Directions = Float[Array, "iteration batch row col rgb"]


def make_completing_denoiser(
    denoise: Denoiser,
    known: Float[Array, "row col rgb"],
    drawn: Bool[Array, "row col 1"],
    *,
    iterations: int,
) -> Denoiser:
    """`(x_t, t) -> E[x0 | x_t, the known pixels of x0]`, for any solver.

    Exact for Gaussian images and as many iterations as there are known values, at every
    t and x_t; for other images it takes x0 given x_t for a Gaussian of its first two
    moments. Each call evaluates the denoiser once, and its derivative once an
    iteration.

    Args:
        denoise: E[x0 | x_t], differentiable.
        known: The image, in [-1, 1], looked at where it is known alone.
        drawn: True where it is not known.
        iterations: Of the linear solver; fewer leave small differences in the known
            pixels out of account.
    """

    def complete(x: Images, t: Float[Array, "*batch"]) -> Images:
        x0, transpose = jax.vjp(lambda x: denoise(x, t), x)
        missing = jnp.where(drawn, 0, known - x0)
        shift = explain(lambda z: transpose(z)[0], missing, drawn, iterations)
        return jnp.where(drawn, x0 + shift, known)

    return complete


def explain(
    spread: Callable[[Images], Images],
    missing: Images,
    drawn: Bool[Array, "row col 1"],
    iterations: int,
) -> Images:
    """spread(z), for the z in the known pixels with spread(z) = missing in them.

    By generalized conjugate residuals (Eisenstat, Elman and Schultz, 1983), each image
    for itself: what is still missing never grows, also where `spread`, as of a trained
    network, is not quite symmetric.

    Args:
        spread: Linear, and each image's result its own.
        missing: 0 where `drawn`.
        drawn: True where nothing is known.
        iterations: At most as many as there are known values are of use.
    """
    least = jnp.finfo(missing.dtype).eps

    def known_product(a: Images, b: Images) -> Float[Array, "batch 1 1 1"]:
        return jnp.sum(jnp.where(drawn, 0, a * b), axis=(1, 2, 3), keepdims=True)

    def iterate(
        index: int | Array, carry: tuple[Images, Images, Directions]
    ) -> tuple[Images, Images, Directions]:
        left, shift, earlier = carry
        new = spread(left)
        size = jnp.sum(new * new, axis=(1, 2, 3), keepdims=True)
        for _ in range(2):  # once leaves what rounding makes of nearly equal directions
            new -= jnp.sum(
                jax.vmap(known_product, (0, None))(earlier, new) * earlier, 0
            )
        square = known_product(new, new)
        # What rounding alone is left of says nothing.
        counts = square > least * size
        new = jnp.where(counts, new / jnp.sqrt(jnp.where(counts, square, 1)), 0)
        part = known_product(new, left)
        left = left - jnp.where(drawn, 0, part * new)
        return left, shift + part * new, earlier.at[index].set(new)

    none = jnp.zeros_like(missing)
    earlier = jnp.zeros((iterations, *missing.shape), missing.dtype)
    _, shift, _ = jax.lax.fori_loop(0, iterations, iterate, (missing, none, earlier))
    return shift
