"""The mesh that options and devices give, and what lies where on it."""

from types import SimpleNamespace

import pytest
from fake_devices import devices_of
from jax.sharding import PartitionSpec

from dig_jax.devices.sharding import (
    check_divides,
    create_mesh,
    fully_sharded,
    sharded_axis,
)
from dig_jax.errors import InputError
from dig_jax.options import MeshOptions


@pytest.mark.parametrize(
    ("options", "devices", "shape"),
    [
        ({}, devices_of(1), (1, 1)),
        ({}, devices_of(8), (1, 8)),
        ({}, devices_of(32, processes=4), (4, 8)),
        ({}, devices_of(256, processes=32), (32, 8)),
        ({}, devices_of(1, slices=1), (1, 1)),
        ({}, devices_of(16, processes=4, slices=1), (2, 8)),  # half of them
        ({}, devices_of(32, processes=8, slices=2), (2, 16)),
        ({}, devices_of(512, processes=128, slices=2), (8, 64)),
        ({}, devices_of(512, processes=128, slices=1), (8, 64)),
        ({}, devices_of(96, processes=12, slices=1), (2, 48)),
        ({"data": 2}, devices_of(8), (2, 1)),
        ({"data": 8}, devices_of(8), (8, 1)),
        ({"fsdp": 2}, devices_of(8), (4, 2)),
        ({"data": 2, "fsdp": -1}, devices_of(8), (2, 4)),
        ({"data": 2, "fsdp": 2}, devices_of(8), (2, 2)),
    ],
)
def test_a_mesh_has_the_shape_that_was_asked_for(options, devices, shape):
    mesh = create_mesh(MeshOptions(**options), devices)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == shape
    rows = [d.process_index for d in mesh.devices.flat]
    assert rows == sorted(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": 0}, r"mesh\.data must be -1 \(the rest\) or 1 to 8 devices, got 0"),
        ({"data": 9}, r"mesh\.data must be .* got 9"),
        ({"fsdp": -2}, r"mesh\.fsdp must be .* got -2"),
        ({"fsdp": 3}, r"mesh\.fsdp must divide the 8 .* got 3\. Choices: 1, 2, 4, 8\."),
        ({"data": 3, "fsdp": -1}, r"mesh\.data must divide the 8 .* 1, 2, 4, 8\."),
        (
            {"data": 4, "fsdp": 4},
            r"at most the 8 devices, got 4 times 4.* 1, 2, 4, 8\.",
        ),
        ({"data": -1, "fsdp": -1}, r"can be -1 \(the rest\), not both"),
    ],
)
def test_an_impossible_mesh_is_refused_with_the_choices(options, message):
    with pytest.raises(InputError, match=message):
        create_mesh(MeshOptions(**options), devices_of(8))


def test_several_processes_use_all_their_devices():
    with pytest.raises(InputError, match=r"all 8 devices of the 2 processes, got 2"):
        create_mesh(MeshOptions(data=2, fsdp=2), devices_of(8, processes=2))


@pytest.mark.parametrize(
    ("shape", "fsdp", "axis"),
    [
        ((64, 256), 8, 1),  # the largest
        ((8, 64, 64), 8, 1),  # the first of the largest
        ((1001, 64), 8, 1),  # the largest that is divisible
        ((7, 1001), 8, None),  # none is
        ((1016,), 8, None),  # less than 128 numbers for each device
        ((1024,), 8, 0),
        ((1024, 1024), 1, None),
        ((), 8, None),
    ],
)
def test_a_leaf_is_spread_along_its_largest_divisible_axis(shape, fsdp, axis):
    assert sharded_axis(shape, fsdp) == axis
    leaf, mesh = SimpleNamespace(shape=shape), create_mesh(MeshOptions(data=1))
    assert fully_sharded(mesh, leaf).spec == PartitionSpec()


def test_a_batch_that_does_not_spread_is_refused():
    mesh = create_mesh(MeshOptions(), devices_of(8))
    check_divides(mesh, 16, "training.batch_size")
    with pytest.raises(
        InputError, match=r"multiple of the 8 devices, got 12.* one of 1, 2, 3, 4, 6\."
    ):
        check_divides(mesh, 12, "training.batch_size")
