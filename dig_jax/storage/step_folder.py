"""Reading the folder of one step, and seeing whether it is what was written."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from dig_jax.errors import InputError
from dig_jax.files.shown import printable
from dig_jax.storage.checkpoint_record import SCHEMA, describe_array
from dig_jax.storage.fingerprint import fingerprints
from dig_jax.storage.meta_file import read_meta_file
from dig_jax.storage.orbax_manners import quiet_orbax

MAX_CHUNK_RATIO = 4
"""By how much a chunk may be larger than its array, as padding makes it."""


class DamagedError(Exception):
    """A step that is finished but cannot be trusted."""


def read_record(folder: epath.Path, what: str) -> dict:
    """The `meta` of a step, after checking that it is what was written.

    Args:
        folder: Of the step; its name is the step's number.
        what: What a step is called in messages.

    Raises:
        DamagedError: It is not.
        InputError: Another version of dig_jax wrote it.
    """
    record, reason = {}, None
    try:
        record = read_meta_file(folder)
    except InputError as error:
        reason = str(error).rstrip(".")
    _raise_if_damaged(reason)
    if (schema := record.get("schema")) != SCHEMA:
        raise InputError(
            f"The {what} of step {folder.name} in {folder.parent} has schema "
            f"{schema!r}; this version of dig_jax reads schema {SCHEMA}. Use the "
            "version that wrote it, or another --workdir."
        )
    return record


def read_item(
    folder: epath.Path,
    record: dict,
    item: str,
    abstract: Mapping[str, Any],
    what: str,
) -> dict[str, jax.Array]:
    """The arrays of one item by name, checked against their fingerprints.

    Args:
        folder: Of the step.
        record: Its `meta`.
        item: Which table.
        abstract: A `jax.ShapeDtypeStruct` for each name; without a sharding the array
            goes to the first device.
        what: What a step is called in messages.

    Raises:
        DamagedError: Other bits than were saved.
        InputError: Other names, shapes or dtypes.
    """
    saved = record["leaves"][item]
    _check_same_model(folder, item, saved, abstract, what)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = {
        name: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=leaf.sharding or device
        )
        for name, leaf in abstract.items()
    }
    leaves, reason = {}, None
    try:
        with quiet_orbax():
            _check_chunks(folder / item, targets)
            leaves = ocp.StandardCheckpointHandler().restore(
                folder / item, args=ocp.args.StandardRestore(targets)
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever a parser says to random bytes
        reason = f"{item} cannot be read ({short(error)})"
    _raise_if_damaged(reason)
    found = fingerprints(leaves)
    wrong = [
        name
        for name, target in targets.items()
        if found[name] != saved[name]["fingerprint"]
        # A typed key comes back untyped where Orbax has lost its own metadata.
        or describe_array(leaves[name]) != describe_array(target)
    ]
    if wrong:
        reason = f"{item} has other bits than were saved in {_some(wrong)}"
    _raise_if_damaged(reason)
    return leaves


def _check_chunks(folder: epath.Path, targets: Mapping[str, Any]) -> None:
    """Raise ValueError where a file declares more than the arrays that are asked for.

    A chunk is unpacked whole, however small it is on disk and however little of it is
    asked for.
    """
    metadata = ocp.StandardCheckpointHandler().metadata(folder)
    for name, found in getattr(metadata, "tree", metadata).items():
        storage = getattr(found, "storage", None)
        chunk = getattr(storage, "chunk_shape", None) or ()
        wanted = targets[name]
        size = math.prod(max(1, length) for length in wanted.shape)
        if math.prod(chunk) > MAX_CHUNK_RATIO * size:
            raise ValueError(
                f"{name} is {describe_array(wanted)}, and its chunks {list(chunk)}"
            )


def short(error: Exception) -> str:
    """An error in one line."""
    return printable(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _check_same_model(
    folder: epath.Path,
    item: str,
    saved: Mapping,
    abstract: Mapping[str, Any],
    what: str,
) -> None:
    there = {name: leaf["array"] for name, leaf in saved.items()}
    here = {name: describe_array(leaf) for name, leaf in abstract.items()}
    differences = [
        f"{item}: {name} is {there.get(name, 'missing')} in the {what} and "
        f"{here.get(name, 'missing')} in this model"
        for name in sorted(there | here)
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise InputError(
            f"The {what} of step {folder.name} in {folder.parent} is of another "
            f"model or optimizer. {_some(differences, separator='; ')}. Use the "
            "configuration that it was trained with, or another --workdir."
        )


def _raise_if_damaged(reason: str | None) -> None:
    """Raises on every process if any of them has a reason.

    Called before anything that the processes compute together, so that none waits for
    one that has passed over the step.
    """
    damaged = reason is not None
    if jax.process_count() > 1:
        damaged = multihost_utils.process_allgather(damaged).any()
    if damaged:
        raise DamagedError(reason or "another process could not read it")


def _some(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return separator.join(names[:3]) + more
