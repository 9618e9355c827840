"""Programs compile once to run once here, so compile them quickly."""

import pytest


# Not for a whole package: without an __init__.py that lasts into other folders.
@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""
