"""What a step needs of the card's memory, and the largest batch that fits."""

import argparse
from typing import Any

import jax

from dig_jax.costs import memory_of
from gpu_parts.networks import (
    STENCIL,
    STEP,
    UVIT,
    Bench,
    Network,
    Program,
    warmed_up,
)
from gpu_parts.report import Report
from gpu_parts.tables import sizes_of


def run(options: argparse.Namespace, report: Report) -> None:
    """DiG-parallel's step, and U-ViT's."""
    limit = options.memory or bytes_limit()
    for network in (STENCIL, UVIT):
        found = predict(network, options, limit)
        if "error" not in found:
            found |= verify(network, options, found["largest batch"])
        report.add("memory", {"network": network.name, **found})


def bytes_limit() -> int:
    """What this process may have of the device; on a CPU nobody says, so 1 GB."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 10**9)


def predict(
    network: Network, options: argparse.Namespace, limit: int
) -> dict[str, Any]:
    """From two sizes of a batch: memory is a constant and so much for each image."""
    sizes = sizes_of(options)
    peaks = []
    for batch in (sizes.batch // 2, sizes.batch):
        bench = Bench(sizes._replace(batch=batch))
        program = bench.compile([(network, STEP)])[network.name, STEP]
        if isinstance(program, str):
            return {"error": program}
        peaks.append(memory_of(program.compiled).peak)
    per_image = (peaks[1] - peaks[0]) / (sizes.batch - sizes.batch // 2)
    constant = peaks[1] - per_image * sizes.batch
    largest = int((limit - constant) / per_image)
    step = max(options.batch // 8, 1)
    return {
        "MB an image": round(per_image / 1e6, 2),
        "GB beside": round(constant / 1e9, 2),
        "GB there": round(limit / 1e9, 2),
        "largest batch": largest // step * step,
    }


def verify(network: Network, options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Whether a step of that batch runs."""
    if batch < 1:
        return {"runs": "no image fits"}
    bench = Bench(sizes_of(options)._replace(batch=batch, count=1))
    programs = warmed_up(bench.compile([(network, STEP)]))
    program = programs[network.name, STEP]
    return {"runs": "yes" if isinstance(program, Program) else program}
