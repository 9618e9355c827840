"""A network of one matrix product: features that NumPy gives too."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dig_jax.metrics.extraction import FeatureExtractor, Features, FeatureSpace

SHAPE = (4, 5, 3)
DIM = 7


def tiny_extractor(*, domain: str = "", spatial: bool = True) -> FeatureExtractor:
    rng = np.random.default_rng(0)
    params = {
        "pool": rng.normal(size=(60, DIM)).astype(np.float32),
        "logits": rng.normal(size=(60, 10)).astype(np.float32),
    }

    def apply(params, images):
        x = images.reshape(len(images), -1).astype(jnp.float32) / 255
        pool = jnp.matmul(x, params["pool"], precision="highest")
        logits = jnp.matmul(x, params["logits"], precision="highest")
        return Features(pool, logits, x[:, :5] if spatial else None)

    space = FeatureSpace("tiny", "0123456789abcdef", "none", DIM, domain)
    return FeatureExtractor(space, params, apply)


def features_in_numpy(
    extractor: FeatureExtractor, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pooled features, logits, spatial features, in float64."""
    x = images.reshape(len(images), -1) / 255
    return x @ extractor.params["pool"], x @ extractor.params["logits"], x[:, :5]


def random_images(seed: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]), ("data",))
