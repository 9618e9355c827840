"""Which versions of packages are installed, and whether they are new enough."""

import functools
import importlib.metadata
import platform
from collections.abc import Iterable
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dig_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "numpy", "orbax-checkpoint", "flax", "optax")
"""Those that numbers depend on."""

LOWER_BOUNDS = (">=", ">", "==", "~=")


class Unmet(NamedTuple):
    """A package that is missing or too old.

    Attributes:
        name: As pip knows it.
        least: What is needed, as in ">=0.12".
        installed: Its version here; None for none.
        wanted: What to ask pip for.
    """

    name: str
    least: str
    installed: str | None
    wanted: str


def package_versions() -> dict[str, str]:
    """Version by name, of PACKAGES and of Python."""
    versions = {name: _version_of(name) for name in PACKAGES}
    return {**versions, "python": platform.python_version()}


@functools.cache
def _version_of(package: str) -> str:
    """Read once: what has been imported stays as it is."""
    return importlib.metadata.version(package)


def check_versions() -> None:
    """Raise InputError where a package is missing or older than dig_jax needs.

    The bounds are those of dig_jax's own metadata; where it is not installed but found
    on the path alone, nothing is known of them and nothing is checked. Packages that
    are newer than what was tried are let through.

    Raises:
        InputError: What is needed, what is installed, and the command that helps.
    """
    try:
        requirements = importlib.metadata.requires("dig_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return
    unmet = find_unmet(requirements)
    if unmet:
        said = "; ".join(map(describe_unmet, unmet))
        wanted = " ".join(f"'{one.wanted}'" for one in unmet)
        raise InputError(f"{said}: pip install {wanted}")


def describe_unmet(unmet: Unmet) -> str:
    """In words."""
    here = f"{unmet.installed} is" if unmet.installed else "none is"
    return f"{unmet.name}{unmet.least} is needed, {here} installed"


def find_unmet(requirements: Iterable[str]) -> list[Unmet]:
    """What of these requirements, as packages state them, is missing or too old.

    Those of extras, and of other platforms, are passed over.
    """
    found = []
    for text in requirements:
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        bounds = [str(s) for s in asked.specifier if s.operator in LOWER_BOUNDS]
        least = SpecifierSet(",".join(bounds))
        try:
            installed = importlib.metadata.version(asked.name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        if installed is None or not least.contains(installed, prereleases=True):
            wanted = f"{asked.name}{asked.specifier}"
            found.append(Unmet(asked.name, str(least), installed, wanted))
    return found
