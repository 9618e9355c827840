"""Devices as jax describes them, of machines that are not there."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FakeDevice:
    """A device as jax describes it."""

    id: int
    process_index: int
    platform: str
    slice_index: int | None


def devices_of(number, processes=1, slices=None):
    """TPUs where slices are given, else GPUs."""
    return [
        FakeDevice(
            id=i,
            process_index=i * processes // number,
            platform="gpu" if slices is None else "tpu",
            slice_index=None if slices is None else i * slices // number,
        )
        for i in range(number)
    ]
