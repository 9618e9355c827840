"""Aggregations: in DiG-mix's step over none, and alone over a copy of the features."""

import argparse
from collections.abc import Callable
from typing import Any

import aggregate
import jax
from common import paired_ratio, seconds_in_turn

from dig_jax.graphs import GridGraph
from gpu_parts.networks import MIX, NONE, STEP, Bench, Network
from gpu_parts.report import Report
from gpu_parts.tables import card_product, measure, sizes_of

COUNT = 20  # of the small programs, queued in each measurement


def mix(name: str, **changes: Any) -> Network:
    """DiG-mix {2, 4}."""
    return Network(f"DiG-mix {name}", MIX.variant, changes)


GROUP = [
    (NONE._replace(name="DiG-mix none", variant=MIX.variant), STEP),
    (mix("stencil", aggregation="stencil"), STEP),
    (mix("dense", aggregation="dense"), STEP),
    (mix("segment", aggregation="segment"), STEP),
]


def run(options: argparse.Namespace, report: Report) -> None:
    """Alone first: that takes seconds."""
    alone(options, report)
    bench = Bench(sizes_of(options))
    measure(GROUP, bench, card_product(options), report, floor=GROUP[0][0])


def alone(options: argparse.Namespace, report: Report) -> None:
    """A row for each graph and aggregation."""
    for kind, sizes in (("parallel", (1,)), ("mix", (1, 2))):
        graph = GridGraph.create(16, sizes, num_hubs=1)
        asked = argparse.Namespace(
            rows=options.batch * 257, width=options.width or 512, dtype="bfloat16"
        )
        runs = {k: queued(run) for k, run in aggregate.make_runs(graph, asked).items()}
        times = seconds_in_turn(runs, repeats=options.repeats)
        copy = times.pop("copy")
        for name, mine in times.items():
            row = {
                "graph": f"{kind}, {graph.num_nodes} nodes",
                "what": name,
                "us": round(sorted(mine)[len(mine) // 2] / COUNT * 1e6, 1),
                "over a copy": round(paired_ratio(mine, copy), 2),
            }
            report.add("aggregations alone", row)


def queued(run: Callable[[], jax.Array]) -> Callable[[], jax.Array]:
    """Several runs, of which the device always has the next."""

    def several() -> jax.Array:
        return [run() for _ in range(COUNT)][-1]

    return several
