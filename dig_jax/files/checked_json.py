"""Files of one JSON object and its checksum, for people to read too."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, write_whole
from dig_jax.files.reading import read_json

CHECKSUM = "sha256"


def sha256_of(values: Mapping[str, Any]) -> str:
    """Checksum of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_checked(
    path: AnyPath, values: Mapping[str, Any], *, sort_keys: bool = False
) -> None:
    """Write a JSON object, which has entries, with its checksum behind the others."""
    assert values, "an object without entries"
    assert CHECKSUM not in values, values
    text = json.dumps(values, indent=2, sort_keys=sort_keys)
    digest = sha256_of(json.loads(text))  # as it will be read
    write_whole(path, f'{text[:-2]},\n  "{CHECKSUM}": "{digest}"\n}}\n')


def read_checked(
    path: AnyPath, what: str, advice: str = ""
) -> tuple[dict[str, Any], bool]:
    """A JSON object without its checksum, and whether it is what was written.

    One without a checksum, as of versions before there was one, passes.

    Raises:
        InputError: It is none; see `read_json`.
    """
    values = read_json(path, what, advice)
    expected = values.pop(CHECKSUM, None)
    return values, expected is None or expected == sha256_of(values)


def read_sound(path: AnyPath, what: str, advice: str = "") -> dict[str, Any]:
    """A JSON object without its checksum.

    Raises:
        InputError: It is none, or not what was written.
    """
    values, sound = read_checked(path, what, advice)
    if not sound:
        raise InputError(
            f"{path} {what}: its checksum is not the one in it.{advice and ' '}{advice}"
        )
    return values
