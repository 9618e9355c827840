"""Feature diversity: how far the nodes of a graph are from all being alike."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def feature_diversity(
    features: Float[Array, "block batch node width"],
) -> Float[Array, "block"]:
    """`|H - 1 h*^T|` after each block, the mean over the batch (DiG, Fig. 4).

    h* minimizes the norm. Under the Frobenius norm, as we read the paper, it is the
    mean over the nodes. Dong et al. (arXiv:2103.03404) bound this residual to show that
    pure attention makes all nodes alike. It is 0 when they are, and grows with their
    number and with the features' scale, so compare it between blocks of one width and
    graph.
    """
    h = features.astype(jnp.float32)
    residual = h - h.mean(axis=2, keepdims=True)
    return jnp.sqrt((residual**2).sum(axis=(2, 3))).mean(axis=1)
