"""Targets and weights of predictions at several resolutions (DiMR, arXiv:2406.09416).

A factor k is how many pixels of the image lie on a side of one of the prediction's.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.interfaces import Images
from dig_jax.options import CoarseTargets, ScaleWeights


def coarse_target(
    target: Images, factor: int, kind: CoarseTargets
) -> Float[Array, "batch low_row low_col rgb"]:
    """What a prediction k times as coarse should be: a sum over k x k pixels, scaled.

    unit_variance: divided by k, so that independent noise keeps its variance, as in
    DiMR's code. average: divided by k^2, as in its Eq. 8.
    """
    batch, rows, cols, rgb = target.shape
    # [batch, row, row in cell, col, col in cell, rgb]
    cells = target.reshape(batch, rows // factor, factor, cols // factor, factor, rgb)
    divisor = factor if kind == "unit_variance" else factor**2
    return jnp.sum(cells, axis=(2, 4)) / divisor


def scale_weight(factor: int, kind: ScaleWeights) -> float:
    """a_r, the weight of a prediction's mean squared error: 1 for the finest."""
    if kind == "area":
        return 1.0 / factor**2
    return 1.0 if factor == 1 else 0.0
