"""The mesh of devices that a program runs on, and where arrays live on it."""

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dig_jax.errors import InputError

DATA_AXIS = "data"


@dataclass(frozen=True)
class MeshOptions:
    """Attributes: data: Devices along the batch; -1 for all there are."""

    data: int = -1


def create_mesh(options: MeshOptions) -> Mesh:
    """A mesh over the local devices: parameters on each, the batch spread over them.

    Raises:
        InputError: More devices than there are.
    """
    devices = jax.devices()
    count = len(devices) if options.data == -1 else options.data
    if not 1 <= count <= len(devices):
        raise InputError(
            f"mesh.data must be -1 (all) or 1 to {len(devices)} devices, got "
            f"{options.data}."
        )
    return Mesh(np.array(devices[:count]), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_divides(mesh: Mesh, batch_size: int, key: str) -> None:
    """Raise InputError unless a batch spreads evenly over the mesh."""
    if batch_size % mesh.size:
        divisors = [n for n in range(1, mesh.size + 1) if batch_size % n == 0]
        raise InputError(
            f"{key} must be a multiple of the {mesh.size} devices, got {batch_size}. "
            f"Change it, or set mesh.data to one of {', '.join(map(str, divisors))}."
        )
