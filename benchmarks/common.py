"""What the benchmarks share: paired timing, a description of the machine."""

import platform
import time
from collections.abc import Callable

import jax
import numpy as np


def median_seconds(
    variants: dict[str, Callable[[], object]], *, repeats: int
) -> dict[str, float]:
    """Median time of each variant, run in turn so that drift hits all alike.

    Args:
        variants: Functions that return arrays of the device, or trees of them.
        repeats: Rounds after one that is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(repeats + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def describe_machine() -> str:
    """Processor or accelerator, cores, versions."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = {
                line.split(":")[1].strip() for line in file if "model name" in line
            }
        name = f"{', '.join(sorted(names))}, {len(_cores())} cores"
    return f"{name}; jax {jax.__version__}, Python {platform.python_version()}"


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)
