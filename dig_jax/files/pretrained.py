"""The models that come with the package: `pretrained:NAME` in place of a workdir.

Each is a folder beside `dig_jax.pretrained`'s modules. They are read, and never written
into: what a command makes of one lies in the current folder.
"""

import os
from pathlib import Path

from etils import epath

from dig_jax.errors import InputError

PREFIX = "pretrained:"
FOLDER = Path(__file__).parents[1] / "pretrained"
LICENCE = "apache-2.0"
"""Of their parameters, as model hubs name it."""


def shipped_names() -> list[str]:
    """The models that there are, by name."""
    return sorted(path.parent.name for path in FOLDER.glob("*/manifest.json"))


def find_shipped(path: str | os.PathLike[str]) -> Path | None:
    """The folder that `pretrained:NAME` stands for; None for any other path.

    Raises:
        InputError: There is no such model.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX):
        return None
    name, known = text.removeprefix(PREFIX).rstrip("/"), shipped_names()
    if name not in known:
        raise InputError(
            f"Unknown pretrained model {name!r}. Available: "
            f"{', '.join(PREFIX + one for one in known) or 'none'}."
        )
    return FOLDER / name


def is_shipped(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a model of the package, or in it."""
    return _model_of(folder) is not None


def _model_of(folder: str | os.PathLike[str]) -> Path | None:
    """The folder of the model that a place is in; None for one elsewhere."""
    if "://" in os.fspath(folder):
        return None
    path = Path(os.path.abspath(folder))
    return next((p for p in (path, *path.parents) if p.parent == FOLDER), None)


def place_for_outputs(workdir: Path | epath.Path) -> Path | epath.Path:
    """Where what is made of a run goes: into its workdir.

    What is made of a model of the package goes into `pretrained_NAME` in the current
    folder.
    """
    return Path(f"pretrained_{workdir.name}") if is_shipped(workdir) else workdir


def name_of(folder: Path | epath.Path) -> str:
    """A folder as users name it: `pretrained:NAME` for a model of the package."""
    return f"{PREFIX}{folder.name}" if is_shipped(folder) else str(folder)


def refuse_shipped(folder: str | os.PathLike[str]) -> None:
    """Raise InputError for a folder that nothing may be written into."""
    if (model := _model_of(folder)) is not None:
        raise InputError(
            f"{folder} lies in the package dig_jax, among the models that it brings "
            "along, and nothing is written there: name a folder of your own, such as "
            f"{place_for_outputs(model)}."
        )
