"""Steps compile once to be taken a few times here, so compile them quickly."""

import jax
import pytest


# Not for a whole package: without an __init__.py that lasts into other folders.
@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
