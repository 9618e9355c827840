"""Chips and the ways they are joined: compiled for without being there."""

import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from dig_jax.devices.sharding import MeshOptions, create_mesh
from dig_jax.devices.target import Gpu
from dig_jax.errors import InputError


class Chip(NamedTuple):
    """What a chip can do at best.

    Attributes:
        hbm_bytes: Its memory.
        flops: bfloat16 products, operations a second.
        hbm_bandwidth: Bytes a second from and to its memory.
        link_bandwidth: Bytes a second that it sends to its neighbours over all links.
        clock: Cycles a second; None where the compiler estimates no cycles.
        dimensions: Of the torus that chips are joined in; 0 for one number of chips.
    """

    hbm_bytes: float
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    clock: float | None
    dimensions: int


# TPUs: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, and the table of "TPU specs" in
# jax-ml.github.io/scaling-book, whose links send 4.5e10 (v4, v5e) or 9e10 (v5p, v6e)
# bytes a second: 6 of them in three dimensions, 4 in two. Clocks follow from the peak
# rate: 2 * 128^2 operations a cycle in each of 8, 4 and 8 matrix units, 2 * 256^2 in
# each of v6e's 4. H100 SXM: NVIDIA's data sheet, without sparsity, NVLink one way.
CHIPS = {
    "v4": Chip(32 * 2**30, 2.75e14, 1.2e12, 2.7e11, 1.05e9, 3),
    "v5e": Chip(16 * 2**30, 1.97e14, 8.2e11, 1.8e11, 1.5e9, 2),
    "v5p": Chip(95 * 2**30, 4.59e14, 2.77e12, 5.4e11, 1.75e9, 3),
    "v6e": Chip(32 * 2**30, 9.18e14, 1.64e12, 3.6e11, 1.75e9, 2),
    "h100": Chip(80e9, 9.89e14, 3.35e12, 4.5e11, None, 0),
}

EXAMPLES = "v4:2x2x1, v5e:4x4, v5p:2x2x2, v6e:16x16, 2xv5e:16x16 (two slices), h100:8"

# libtpu asks the cloud which machine this is unless it is told.
_LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


# What XLA asks of a GPU (xla/backends/gpu/target_config/specs/h100_sxm.txtpb).
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84978434048
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_H100_AND_CUDNN = Gpu(compute_capability=(9, 0), cudnn_version=90800)  # as it says
_GPUS_OF_A_HOST = 8


_WHOLE_STATES = MeshOptions(fsdp=1)


@dataclass(frozen=True)
class Topology:
    """Chips that are compiled for, each of them one device.

    Attributes:
        name: As it was asked for.
        chip: What each of them can do.
        platform: cpu, gpu or tpu, as JAX names it.
        devices: All of them, slice after slice.
        num_slices: TPU slices, which only the data center's network joins.
        gpu: What `compiling_for` is to be told besides the platform.
    """

    name: str
    chip: Chip
    platform: str
    devices: tuple[Any, ...]
    num_slices: int = 1
    gpu: Gpu | None = None

    def mesh(
        self, num_devices: int | None = None, options: MeshOptions = _WHOLE_STATES
    ) -> Mesh:
        """A mesh of the first devices (all, by default).

        Args:
            num_devices: How many.
            options: Its axes; by default the state is on every device.
        """
        return create_mesh(options, self.devices[:num_devices])


def create_topology(name: str, *, num_slices: int = 1) -> Topology:
    """The topology of a name such as `v5e:4x4`, `2xv5e:16x16` or `h100:8`.

    Args:
        name: [slices x] chip : chips along each dimension, as in EXAMPLES.
        num_slices: Slices, where the name does not say.

    Raises:
        InputError: A name that means nothing, or a compiler that is not installed.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(\w+):(\d+(?:x\d+)*)", name.lower())
    kind = match[2] if match else name.lower().partition(":")[0]
    if match is None or kind not in CHIPS:
        raise InputError(
            f"Unknown topology {name!r}. Chips: {', '.join(CHIPS)}; for example "
            f"{EXAMPLES}."
        )
    slices, chip = int(match[1] or num_slices), CHIPS[kind]
    shape = tuple(int(n) for n in match[3].split("x"))
    if slices < 1 or 0 in shape:
        raise InputError(f"A topology needs at least one chip, got {name!r}.")
    if chip.dimensions:
        devices = _tpu_devices(kind, shape, slices)
        return Topology(name, chip, "tpu", devices, slices)
    devices = _gpu_devices(math.prod(shape) * slices)
    return Topology(name, chip, "gpu", devices, slices, _H100_AND_CUDNN)


def _tpu_devices(kind: str, shape: tuple[int, ...], slices: int) -> tuple[Any, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "Compiling for TPU needs libtpu, which is not installed: "
            'pip install "jax[tpu]".'
        )
    for variable, value in _LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    dimensions = CHIPS[kind].dimensions
    options: dict = {"num_slices": slices} if slices > 1 else {}
    if math.prod(shape) == 1:
        shape, options["chips_per_host_bounds"] = (1,) * dimensions, (1, 1, 1)
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # else each core is a device
    name = f"{kind}:{'x'.join(map(str, shape))}"
    try:
        if len(shape) != dimensions:
            raise ValueError(f"it has {dimensions} dimensions")
        described = topologies.get_topology_desc(name, platform="tpu", **options)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        raise InputError(
            f"{kind} has no topology {name!r} ({error}). Each host has 2x2 of its chips"
            f"{' and one layer' if dimensions == 3 else ''}; for example {EXAMPLES}."
        ) from error
    return tuple(described.devices)


def _gpu_devices(count: int) -> tuple[Any, ...]:
    hosts, rest = divmod(count, _GPUS_OF_A_HOST)
    if hosts and rest:
        raise InputError(
            f"Hosts have {_GPUS_OF_A_HOST} GPUs: a topology has up to "
            f"{_GPUS_OF_A_HOST} of them or a multiple, got {count}."
        )
    hosts, each = (hosts, _GPUS_OF_A_HOST) if hosts else (1, rest)
    try:
        described = topologies.get_topology_desc(
            "", "cuda", target_config=_H100, topology=f"1x{hosts}x{each}"
        )
    except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise InputError(
            "Compiling for H100 needs JAX's CUDA plugin and NVIDIA's assembler "
            f'({error}): pip install "jax-cuda12-plugin=={jax.__version__}" '
            "nvidia-cuda-nvcc-cu12."
        ) from error
    return tuple(described.devices)
