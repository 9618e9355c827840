import pytest
from known_laws import Gaussian

from dig_jax.diffusion import create_sde


# Not for a whole package: without an __init__.py that lasts into other folders.
@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="session")
def gaussian():
    return Gaussian(create_sde("vp_linear"), mean=0.5, std=2.0)
