"""What a checkpoint holds: flat tables of arrays, and a record to check them by."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax

from dig_jax.errors import InputError
from dig_jax.files.checked_json import sha256_of
from dig_jax.storage.fingerprint import fingerprints, named_leaves
from dig_jax.storage.state import TrainState
from dig_jax.versions import package_versions

SCHEMA = 1
RESERVED_KEYS = ("schema", "step", "versions", "leaves")

Items: TypeAlias = dict[str, dict[str, Any]]
"""The parts of a checkpoint that are read apart, each a flat table of leaves."""


def to_items(state: TrainState) -> Items:
    """A state as the items of a checkpoint, each a flat table of leaves.

    Flat, because then the tree itself comes from the code that reads it: a checkpoint
    does not depend on how optax or Orbax spell tuples and empty states.
    """
    train = state._asdict()
    ema = train.pop("ema")
    return {"train": named_leaves(train), "ema": named_leaves(ema)}


def from_items(items: Items, like: TrainState) -> TrainState:
    """Undo `to_items`, in the tree of another state."""
    train = like._asdict()
    ema = unflatten(items["ema"], train.pop("ema"))
    return TrainState(ema=ema, **unflatten(items["train"], train))


def unflatten(leaves: Mapping[str, Any], like: Any) -> Any:
    """A flat table of leaves in the tree of another, by their names."""
    return jax.tree.unflatten(
        jax.tree.structure(like), [leaves[name] for name in named_leaves(like)]
    )


def make_record(step: int, meta: dict, items: Items) -> dict:
    """What is written as `meta`: the record, and a checksum of it."""
    if taken := [key for key in RESERVED_KEYS if key in meta]:
        raise InputError(f"meta must not have the keys {taken}: they are set here.")
    leaves = {}
    for item, arrays in items.items():
        sums = fingerprints(arrays)
        leaves[item] = {
            name: {"array": describe_array(x), "fingerprint": sums[name]}
            for name, x in arrays.items()
        }
    record = {
        **meta,
        "schema": SCHEMA,
        "step": step,
        "versions": package_versions(),
        "leaves": leaves,
    }
    record = json.loads(json.dumps(record))  # as it will be read
    return {"sha256": sha256_of(record), "record": record}


def describe_array(x: Any) -> str:
    """What an array is, as in `float32[3,8]`."""
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
