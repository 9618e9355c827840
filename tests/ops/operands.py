"""What products, norms and GELU are tried on."""

import jax.numpy as jnp
import pytest

from dig_jax.ops.products import matmul

platforms = pytest.mark.parametrize("platform", ["cpu", "tpu", "gpu"])


def random(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def exact(x, kernel):
    return matmul(x, kernel, "float32")
