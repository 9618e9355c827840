"""Each aggregation alone: forward, and backward, for graphs of 64 to 4,096 patches.

    python benchmarks/aggregate.py [--sides=8,16,32,64] [--width=512] [--rows=4096]
        [--dtype=float32] [--repeats=5] [--clock=wall|cpu] [--out=FILE.json]

A grid of side x side patches with one hub, alone (`at_scale(0)` of DiG-parallel) and
with a scale of twice the patch size (DiG-mix), for as many images as make about so many
rows. Times are over that of a copy of the features, h + 1, in the same rounds;
"product" is one [width, width] product of the same rows, for comparison.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from common import (
    compile_for,
    describe_machine,
    numbers,
    paired_ratio,
    print_table,
    seconds_in_turn,
    write_json,
)

from dig_jax.graphs import GridGraph
from dig_jax.ops.aggregation import AGGREGATIONS


def make_runs(graph: GridGraph, options: argparse.Namespace) -> dict[str, Callable]:
    """Each aggregation forward and backward, a copy, and a product; compiled."""
    images = max(1, options.rows // graph.num_nodes)
    h = jnp.ones((images * graph.num_nodes, options.width), options.dtype)
    kernel = jnp.ones((options.width, options.width), options.dtype)

    def runner(function: Callable, *args: jax.Array) -> Callable:
        call = compile_for(function, *args).call
        return lambda: call(*args)

    runs = {
        "copy": runner(lambda h: h + 1, h),
        "product": runner(
            lambda h, w: jnp.dot(h, w, preferred_element_type=jnp.float32), h, kernel
        ),
    }
    for name, create in AGGREGATIONS.items():
        aggregate = create(graph, "mean")
        runs[f"{name} forward"] = runner(aggregate, h)
        runs[f"{name} backward"] = runner(
            lambda h, g, aggregate=aggregate: jax.vjp(aggregate, h)[1](g), h, h
        )
    return runs


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each graph."""
    rows = []
    for side in options.sides:
        for kind in ("parallel", "mix"):
            sizes = (1, 2) if kind == "mix" else (1,)
            graph = GridGraph.create(side, sizes, num_hubs=1)
            times = seconds_in_turn(
                make_runs(graph, options),
                repeats=options.repeats,
                clock=options.clock,
            )
            copy = times.pop("copy")
            rows.append(
                {
                    "graph": kind,
                    "nodes": graph.num_nodes,
                    "copy, ms": round(sorted(copy)[len(copy) // 2] * 1e3, 2),
                    **{k: round(paired_ratio(v, copy), 1) for k, v in times.items()},
                }
            )
    return rows


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default=[8, 16, 32, 64], type=numbers)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = measure(options)
    print(f"{describe_machine()}; {options.dtype}, width {options.width}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
