"""The device that these tests try, and what it is compared with.

DIG_JAX_TEST_DEVICE=cuda tries a GPU; cpu tries the tests themselves, where none is.
"""

import os

import pytest


@pytest.fixture(scope="session")
def device():
    """The device under test."""
    import jax

    wanted = os.environ.get("DIG_JAX_TEST_DEVICE", "")
    if not wanted:
        pytest.skip("no device is chosen: DIG_JAX_TEST_DEVICE=cuda (or cpu)")
    try:
        return jax.devices(wanted)[0]
    except RuntimeError as error:
        pytest.skip(f"no {wanted} device: {str(error).splitlines()[0]}")
