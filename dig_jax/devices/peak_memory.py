"""The most memory that a process has had."""

import resource
import sys

import jax


def peak_bytes() -> dict[str, int]:
    """The most bytes so far: of this process, and of its first device if that says so.

    `host` is what the system has given the process at most, `device` what jax has had
    of the device at most (GPUs and TPUs).
    """
    kilo = 1 if sys.platform == "darwin" else 1024
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["device"] = int(stats["peak_bytes_in_use"])
    return found
