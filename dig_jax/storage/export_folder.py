"""The folder that `--mode=export` writes: what lies in it, checked and read back.

`manifest.json` holds a record of the export with a checksum of each file, and a
checksum of the record. It is written last: a folder without one is no export.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from dig_jax.errors import InputError
from dig_jax.files.checked_json import sha256_of
from dig_jax.files.paths import AnyPath, write_whole
from dig_jax.files.pretrained import is_shipped
from dig_jax.files.reading import read_json, readable
from dig_jax.files.tensors import Declared, read_tensors
from dig_jax.interfaces import Params
from dig_jax.storage.checkpoint_record import unflatten
from dig_jax.storage.fingerprint import named_leaves

SCHEMA = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
SAMPLER = "sampler.stablehlo"
PARAMETERS = "parameters.safetensors"
GUIDE_PREFIX = "guide/"
"""Before the names of a guide's parameters."""
DECODER_PREFIX = "autoencoder/"
"""Before those of what decodes latents."""
_OTHERS = (GUIDE_PREFIX, DECODER_PREFIX)


def group_file(platform: str) -> str:
    """Name of the file with a platform's sampler of one group of images."""
    return f"group_{platform}.stablehlo"


def is_export(folder: AnyPath) -> bool:
    """Whether a folder is an export, or what is left of one."""
    return any((folder / name).exists() for name in (MANIFEST, SAMPLER))


def write_manifest(
    folder: AnyPath, files: Iterable[str], record: dict[str, Any]
) -> None:
    """Write the record of an export whose files are there."""
    digests = {name: _digest(folder / name) for name in sorted(files)}
    record = {**record, "schema": SCHEMA, "files": digests}
    record = json.loads(json.dumps(record))  # as it will be read
    whole = {"sha256": sha256_of(record), "record": record}
    write_whole(folder / MANIFEST, json.dumps(whole, indent=2, sort_keys=True) + "\n")


def read_manifest(folder: AnyPath) -> dict[str, Any]:
    """The record of an export, whose files are as they were written.

    Raises:
        InputError: No export, one of another schema, or a damaged one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder} is no export: {MANIFEST} is missing. Make one with "
            "`python -m dig_jax.main --mode=export --workdir=RUN "
            f"{shlex.quote(f'--out={folder}')}`."
        )
    again = "Export the run again, or copy the folder again."
    with readable(path, "is damaged", again):
        whole = read_json(path, "is damaged", again)
        record, digest = whole["record"], whole["sha256"]
        schema = record["schema"]
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}, and this version of dig_jax reads schema "
            f"{SCHEMA}: use the version that wrote it, or export the run again."
        )
    if sha256_of(record) != digest:
        raise InputError(
            f"{path} is damaged: its checksum is not the one in it. {again}"
        )
    with readable(path, "is no manifest of an export", again):
        _check_fields(path, record)
    for name, expected in record["files"].items():
        file = path.parent / name
        if not file.is_file():
            raise InputError(f"{folder} is damaged: {name} is missing. {again}")
        if _digest(file) != expected:
            raise InputError(
                f"{file} is damaged: its checksum is not the one in {MANIFEST}. {again}"
            )
    return record


def _check_fields(path: AnyPath, record: Mapping[str, Any]) -> None:
    """Raise what is wrong with a record whose checksum is right."""
    for name in record["files"]:
        if PurePosixPath(name).name != name:
            raise InputError(f"{path} names {name!r}, which is not in its folder.")
    step, sigma_rel = record["step"], record["sigma_rel"]
    if type(step) is not int or not isinstance(sigma_rel, float | int | None):
        raise ValueError(f"its step is {step!r}, its sigma_rel {sigma_rel!r}")
    files = record["files"]
    if not isinstance(files, dict):
        raise TypeError(f"its files are {type(files).__name__}, no object")
    for name in (PARAMETERS, CONFIG):
        if name not in files:
            raise ValueError(f"it does not name {name}")


def named_parameters(
    params: Params, guide_params: Params | None, decoder_params: Params | None
) -> dict[str, Any]:
    """All of an export's parameters by their flat names."""
    named = named_leaves(params)
    for prefix, more in (
        (GUIDE_PREFIX, guide_params),
        (DECODER_PREFIX, decoder_params),
    ):
        if more is not None:
            named |= {prefix + name: leaf for name, leaf in named_leaves(more).items()}
    return named


def write_parameters(
    folder: AnyPath,
    params: Params,
    guide_params: Params | None = None,
    decoder_params: Params | None = None,
) -> None:
    """Write parameters as float32 safetensors under their flat names."""
    named = named_parameters(params, guide_params, decoder_params)
    tensors = {
        name: np.ascontiguousarray(jax.device_get(leaf), np.float32)
        for name, leaf in sorted(named.items())
    }
    write_whole(folder / PARAMETERS, save(tensors))


def read_parameters(
    folder: AnyPath,
    manifest: Mapping[str, Any],
    abstract: Params,
    *,
    step: int | str | None,
    sigma_rel: float | None,
) -> tuple[Params, int]:
    """The averaged parameters of an export, and the training steps behind them.

    Args:
        folder: The export.
        manifest: Its record, from `read_manifest`.
        abstract: A `jax.ShapeDtypeStruct` with a sharding for each parameter.
        step: The step that is asked for; None for the one there is.
        sigma_rel: The width of the average that is asked for.

    Raises:
        InputError: They are of another network, step or average than is asked for.
    """
    for name, asked, there in (
        ("step", step, manifest["step"]),
        ("sigma_rel", sigma_rel, manifest["sigma_rel"]),
    ):
        if asked != there and not (name == "step" and asked is None):
            kind, advice = "An export", f"leave {name} out, or open the run it is of"
            if is_shipped(folder):
                kind, advice = "A model of the package", f"leave {name} out"
            raise InputError(
                f"{kind} holds one set of parameters: the one in {folder} has "
                f"{name}={there}, got {name}={asked}. Here {advice}."
            )
    wanted = named_leaves(abstract)

    def check(declared: Mapping[str, Declared], _: Mapping[str, str]) -> None:
        mine = {k: v for k, v in declared.items() if not k.startswith(_OTHERS)}
        _check_parameters(folder, mine, wanted)

    mine = read_tensors(folder / PARAMETERS, check).arrays
    placed = {
        name: jax.device_put(mine[name], leaf.sharding) for name, leaf in wanted.items()
    }
    return unflatten(placed, abstract), manifest["step"]


def _check_parameters(
    folder: AnyPath, found: Mapping[str, Declared], wanted: Mapping[str, Any]
) -> None:
    """Raise InputError unless arrays have the names, shapes and types of others."""

    def described(leaves: Mapping[str, Any], name: str) -> str:
        if name not in leaves:
            return "none"
        return f"{leaves[name].dtype}{list(leaves[name].shape)}"

    for name in sorted({*found, *wanted}):
        here, there = described(found, name), described(wanted, name)
        if here != there:
            raise InputError(
                f"{folder} holds the parameters of another network than its "
                f"{CONFIG} describes: {name} must be {there}, got {here}."
            )


def _digest(path: AnyPath) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
