"""Which versions of the packages that numbers depend on are installed."""

import importlib.metadata
import platform

PACKAGES = ("jax", "jaxlib", "numpy", "orbax-checkpoint", "flax", "optax")


def package_versions() -> dict[str, str]:
    """Version by name, of PACKAGES and of Python."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {**versions, "python": platform.python_version()}
