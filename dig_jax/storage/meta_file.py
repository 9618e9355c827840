"""What a checkpoint says beside its arrays: a JSON object with its checksum."""

from typing import Any

from dig_jax.errors import InputError
from dig_jax.files.checked_json import sha256_of
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import read_json

COMMIT_FILE = "commit_success.txt"
"""Orbax puts it into a folder when all of it is there."""
_WHAT = "cannot be read"


def finished_steps(directory: AnyPath) -> list[int]:
    """The steps in a directory that were saved to the end, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(
        int(folder.name)
        for folder in directory.iterdir()
        if is_step_name(folder.name) and (folder / COMMIT_FILE).exists()
    )


def is_step_name(name: str) -> bool:
    """Whether a folder is called as that of a step is."""
    decimal = name.isascii() and name.isdecimal() and len(name) < 20
    return decimal and name == str(int(name))


def read_meta_file(folder: AnyPath) -> dict[str, Any]:
    """The `meta` of a step, after checking that it is what was written.

    Args:
        folder: Of the step; its name is the step's number.

    Raises:
        InputError: It is not.
    """
    path = folder / "meta" / "metadata"
    saved = read_json(path, _WHAT)
    record = saved.get("record")
    if not isinstance(record, dict) or saved.get("sha256") != sha256_of(record):
        raise InputError(f"{path} {_WHAT}: it does not match its checksum.")
    if type(record.get("step")) is not int or str(record["step"]) != folder.name:
        raise InputError(f"{path} {_WHAT}: it is of another step than its folder.")
    return record
