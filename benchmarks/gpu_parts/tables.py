"""The training and forward tables, and the products whose rate they are shares of."""

import argparse
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from common import Products, paired_ratio, queued_products, seconds_in_turn

from gpu_parts.networks import (
    DIT,
    FORWARD,
    MIX,
    NONE,
    STENCIL,
    STEP,
    UVIT,
    Bench,
    Network,
    Program,
    Sizes,
    macs_of,
    parallel,
    seconds_since,
    warmed_up,
)
from gpu_parts.report import Report

RATE = "rate"
# What the goals are about comes first: a run may be cut off.
GROUPS = (
    [(n, work) for n in (STENCIL, NONE, UVIT, DIT) for work in (STEP, FORWARD)],
    [
        (NONE, STEP),
        (parallel("dense", aggregation="dense"), STEP),
        (MIX, STEP),
        (Network("U-ViT/2 xla", "uvit_2", {"attention": "xla"}), STEP),
        (parallel("segment", aggregation="segment"), STEP),
        (parallel("stencil, mixed", dtype="mixed"), STEP),
    ],
)


def sizes_of(options: argparse.Namespace) -> Sizes:
    """As the command line has them."""
    return Sizes(
        batch=options.batch,
        depth=options.depth,
        width=options.width,
        count=options.count,
        repeats=options.repeats,
    )


def card_product(options: argparse.Namespace) -> Products:
    """The square products whose rate is the card's own."""
    side = options.product
    return queued_products(side, side, side, count=4)


def run(options: argparse.Namespace, report: Report) -> None:
    """Rates, then the groups: each is compiled, timed and reported before the next."""
    rate = card_product(options)
    report_rates(options, report, rate)
    bench = Bench(sizes_of(options))
    for group in GROUPS:
        measure(group, bench, rate, report)


def report_rates(options: argparse.Namespace, report: Report, card: Products) -> None:
    """Of bare products: the card's own, and the shapes of the network's."""
    rows, width = options.batch * 257, options.width or 512
    runs: dict[Any, Products] = {(f"{options.product}^3", "bfloat16"): card}
    for inner, cols in ((1, 1), (1, 2), (1, 3), (3, 1)):
        for out in (jnp.bfloat16, jnp.float32):
            shape = f"[{rows}, {inner * width}] x [{inner * width}, {cols * width}]"
            runs[shape, jnp.dtype(out).name] = queued_products(
                rows, inner * width, cols * width, out=out, count=20
            )
    times = seconds_in_turn({k: p.run for k, p in runs.items()}, repeats=5)
    for (shape, out), product in runs.items():
        rate = product.flops / np.median(times[shape, out])
        row = {"product": shape, "into": out, "TFLOP/s": round(rate / 1e12, 1)}
        report.add("products", row)


def measure(
    group: list[tuple[Network, str]],
    bench: Bench,
    rate: Products,
    report: Report,
    *,
    floor: Network = NONE,
) -> None:
    """Rows of one group, its ratios (also to `floor`) taken within the same rounds."""
    start = time.perf_counter()
    programs = bench.compile(group)
    report.note(f"compiled {len(group)} programs in {seconds_since(start)} s")
    programs = warmed_up(programs)
    runs: dict[Any, Any] = {
        key: program.run
        for key, program in programs.items()
        if isinstance(program, Program)
    }
    times = seconds_in_turn({**runs, RATE: rate.run}, repeats=bench.sizes.repeats)
    for network, work in group:
        program = programs[network.name, work]
        table = "training" if work == STEP else "forward"
        if isinstance(program, str):
            report.add(table, {"network": network.name, "error": program})
        else:
            row = describe(network, work, program, times, bench.sizes, rate, floor)
            report.add(table, row)


def describe(
    network: Network,
    work: str,
    program: Program,
    times: dict[Any, list[float]],
    sizes: Sizes,
    rate: Products,
    floor: Network,
) -> dict[str, Any]:
    """The row of a network.

    Its share is of the card's own products in the same rounds. Operations are two for
    each multiply-accumulate of `dig_jax.costs.summary` (linear layers, convolutions and
    attention's products, no aggregation), three times as many in a step.
    """
    mine, least = times[network.name, work], times.get((floor.name, work))
    flops = 2.0 * sizes.batch * sizes.count * macs_of(network, sizes)
    flops *= 3 if work == STEP else 1
    seconds = float(np.median(mine)) / sizes.count
    share = (flops / rate.flops) / paired_ratio(mine, times[RATE])
    compares = least if network.variant == floor.variant else None
    return {
        "network": network.name,
        "ms": round(seconds * 1e3, 2),
        "images/s": round(sizes.batch / seconds, 1),
        "of the rate": round(share, 3),
        "GB temporary": round(program.temporaries / 1e9, 2),
        "over none": round(paired_ratio(mine, compares), 3) if compares else "",
    }
