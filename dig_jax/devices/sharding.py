"""The mesh of devices that a program runs on, and where arrays live on it."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dig_jax.errors import InputError
from dig_jax.options import MeshOptions

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
BATCH_AXES = (DATA_AXIS, FSDP_AXIS)
"""Mesh axes that a batch is spread over: all there are."""

# A leaf is spread where each device gets at least as many numbers: a row of lanes of a
# TPU's registers. Spreading less saves nothing and costs a collective each.
LEAST_SHARD = 128
# Beyond it, few of the axes of usual widths (512, 768, 1024) can be divided, and a part
# of a usual leaf is so small that TPUs' compiler gathers by adding zeros.
GREATEST_AUTOMATIC_FSDP = 64


def create_mesh(options: MeshOptions, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over the devices of all processes.

    The devices of a process are neighbors, so that each process has whole rows of a
    batch, in the order of the processes.

    Args:
        options: How many devices along each axis.
        devices: Which; by default those of this machine, or of all processes.

    Raises:
        InputError: More devices than there are, not all those of several processes, or
            a number that does not divide them.
    """
    if devices is None:
        devices = jax.devices()
    devices = sorted(devices, key=lambda d: (d.process_index, d.id))
    data, fsdp = _mesh_shape(options, devices)
    processes = len({d.process_index for d in devices})
    if processes > 1 and data * fsdp < len(devices):
        raise InputError(
            f"mesh.data times mesh.fsdp must be all {len(devices)} devices of the "
            f"{processes} processes, got {data} times {fsdp}. Set mesh.data=-1 for the "
            f"rest."
        )
    return _mesh_of(devices[: data * fsdp], data, fsdp)


def _mesh_of(devices: Sequence[Any], data: int, fsdp: int) -> Mesh:
    return Mesh(np.array(devices).reshape(data, fsdp), BATCH_AXES)


def _mesh_shape(options: MeshOptions, devices: Sequence[Any]) -> tuple[int, int]:
    """Devices along data and fsdp."""
    count, data, fsdp = len(devices), options.data, options.fsdp
    if fsdp is None:
        fsdp = _automatic_fsdp(devices) if data == -1 else 1
    for name, number in (("data", data), ("fsdp", fsdp)):
        if number != -1 and not 1 <= number <= count:
            raise InputError(
                f"mesh.{name} must be -1 (the rest) or 1 to {count} devices, got "
                f"{number}."
            )
    if data == fsdp == -1:
        raise InputError(
            "One of mesh.data and mesh.fsdp can be -1 (the rest), not both."
        )
    if data == -1 or fsdp == -1:
        name, given = ("fsdp", fsdp) if data == -1 else ("data", data)
        if count % given:
            raise InputError(
                f"mesh.{name} must divide the {count} devices, got {given}. Choices: "
                f"{listed(divisors(count))}."
            )
        data, fsdp = (count // given, fsdp) if data == -1 else (data, count // given)
    if data * fsdp > count:
        raise InputError(
            f"mesh.data times mesh.fsdp must be at most the {count} devices, got "
            f"{data} times {fsdp}. Choices for mesh.fsdp, with mesh.data=-1 for the "
            f"rest: {listed(divisors(count))}."
        )
    return data, fsdp


def _automatic_fsdp(devices: Sequence[Any]) -> int:
    """The most devices, up to a bound, that divide each fast network alike."""
    common, most = math.gcd(*fast_networks(devices).values()), GREATEST_AUTOMATIC_FSDP
    if devices[0].platform == "tpu":
        # Over all chips of a program libtpu 0.0.42 reduces whole gradients, and then
        # slices them: twice the bytes of the reduce-scatter that parts of them get.
        most = min(most, max(len(devices) // 2, 1))
    return max(n for n in divisors(common) if n <= most)


def fast_networks(devices: Sequence[Any]) -> Counter[int]:
    """Devices that each fast network joins: a TPU slice, or what is in one host.

    Between two of them there is only the data center's network.
    """
    if devices[0].platform == "tpu":
        return Counter(getattr(d, "slice_index", 0) or 0 for d in devices)
    return Counter(d.process_index for d in devices)


def divisors(number: int) -> list[int]:
    """What divides a number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]


def listed(numbers: Sequence[int]) -> str:
    """Choices as a message names them."""
    return ", ".join(map(str, numbers))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def sharded_axis(shape: tuple[int, ...], fsdp: int) -> int | None:
    """The axis along which a leaf of the state is spread; None for small leaves.

    The largest that the devices divide, the first of several: a rule on shapes alone,
    so that a parameter, its averages and its moments lie alike.
    """
    if fsdp == 1 or math.prod(shape) < LEAST_SHARD * fsdp:
        return None
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    return max(divisible, key=lambda axis: shape[axis], default=None)


def fully_sharded(mesh: Mesh, tree: Any) -> Any:
    """For each leaf of a state its sharding, by the rule of `sharded_axis`."""

    def sharding(leaf: Any) -> NamedSharding:
        axis = sharded_axis(leaf.shape, mesh.shape[FSDP_AXIS])
        spread = () if axis is None else (*[None] * axis, FSDP_AXIS)
        return NamedSharding(mesh, PartitionSpec(*spread))

    return jax.tree.map(sharding, tree)


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
    devices = jax.local_devices()
    return _mesh_of(devices, len(devices), 1)


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
        fitting = [n for n in divisors(batch_size) if n <= mesh.size]
        raise InputError(
            f"{key} must be a multiple of the {mesh.size} devices, got {batch_size}. "
            f"Change it, or mesh.data times mesh.fsdp to one of {listed(fitting)}."
        )
