"""The mesh of devices that a program runs on, and where arrays live on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dig_jax.errors import InputError

DATA_AXIS = "data"


@dataclass(frozen=True)
class MeshOptions:
    """Attributes: data: Devices along the batch; -1 for all there are."""

    data: int = -1


def create_mesh(options: MeshOptions) -> Mesh:
    """A mesh over the devices of all processes, the batch spread over them.

    The devices of a process are neighbors, so that each process has whole rows of a
    batch, in the order of the processes.

    Raises:
        InputError: More devices than there are, or not all those of several processes.
    """
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    count = len(devices) if options.data == -1 else options.data
    if not 1 <= count <= len(devices):
        raise InputError(
            f"mesh.data must be -1 (all) or 1 to {len(devices)} devices, got "
            f"{options.data}."
        )
    if jax.process_count() > 1 and count < len(devices):
        raise InputError(
            f"mesh.data must be -1 (all) in several processes, or the {len(devices)} "
            f"devices that they have together, got {options.data}."
        )
    return Mesh(np.array(devices[:count]), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def place_rows(mesh: Mesh, rows: Any) -> Any:
    """Batches (a tree of arrays) spread over a mesh, from each process's own rows."""
    sharding = batch_sharded(mesh)
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    place = partial(jax.make_array_from_process_local_data, sharding)
    return jax.tree.map(place, rows)


def place_batch(mesh: Mesh, batch: np.ndarray) -> jax.Array:
    """A batch spread over a mesh, which every process has as a whole."""
    return jax.make_array_from_callback(
        batch.shape, batch_sharded(mesh), lambda index: batch[index]
    )


def to_host(array: jax.Array) -> np.ndarray:
    """An array as a whole, in every process: all of them make this call."""
    if not array.is_fully_addressable and not array.is_fully_replicated:
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())  # type: ignore
        array = jax.jit(lambda a: a, out_shardings=everywhere)(array)
    return np.asarray(array)


def is_first_process() -> bool:
    """Whether this process writes, prints and decides for all."""
    return jax.process_index() == 0


def local_mesh() -> Mesh:
    """A mesh over this process's own devices."""
    return Mesh(np.array(jax.local_devices()), (DATA_AXIS,))


def as_first_process_says(value: bool) -> bool:
    """Process 0's value, in every process: all of them make this call."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def wait_for_all(what: str) -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def make_sum_and_max(mesh: Mesh) -> Callable[[int, int], tuple[Any, Any]]:
    """`(a, b) -> (sum of a, maximum of b)` over all processes, which make the call.

    With several processes the results are arrays that are not waited for.
    """
    if jax.process_count() == 1:
        return lambda a, b: (a, b)
    everywhere = replicated(mesh)

    def reduce(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rows[:, 0].sum(), rows[:, 1].max()

    jitted = jax.jit(reduce, out_shardings=(everywhere, everywhere))

    def sum_and_max(a: int, b: int) -> tuple[jax.Array, jax.Array]:
        rows = np.zeros((jax.local_device_count(), 2), np.int32)
        rows[0] = a, b
        return jitted(place_rows(mesh, rows))

    return sum_and_max


def check_divides(mesh: Mesh, batch_size: int, key: str) -> None:
    """Raise InputError unless a batch spreads evenly over the mesh."""
    if batch_size % mesh.size:
        divisors = [n for n in range(1, mesh.size + 1) if batch_size % n == 0]
        raise InputError(
            f"{key} must be a multiple of the {mesh.size} devices, got {batch_size}. "
            f"Change it, or set mesh.data to one of {', '.join(map(str, divisors))}."
        )
