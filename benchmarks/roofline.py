"""The training step compiled for chips that are not there, and what bounds it.

    python benchmarks/roofline.py [--topology=v5e:1x1,v5p:2x2x1,h100:1]
        [--config=configs/cifar10.py:dig_parallel_2_4] [--image_size=32,64,128]
        [--aggregation=none,dense,stencil,segment] [--attention=auto] [--depth=2]
        [--batch=64] [--blocks=unrolled,scan,remat,"scan remat"] [--largest_batch]
        [--kinds] [--out=FILE.json]

One chip of each topology takes a whole batch; with --all_devices each takes one. FLOPs,
bytes of main memory and the TPU compiler's estimated cycles are counted in the
optimized HLO (`dig_jax.costs`); "share" is the FLOPs of the products over what the
chip could do in those cycles. "none" scales features instead of aggregating them;
"over none" is the ratio to its row. Attention "free" leaves the attention itself out,
and adds its products at the chip's peak: no kernel, however good, is faster. Nothing
runs: these are a compiler's estimates.
"""

import argparse
import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from common import (
    aggregation_off,
    attention_left_out,
    left_out_flops,
    numbers,
    print_table,
    words,
    write_json,
)
from ml_collections import ConfigDict
from train_step import BLOCKS

from dig_jax.config import load_config_file
from dig_jax.costs import (
    Costs,
    DoesNotFitError,
    Memory,
    Topology,
    compile_train_step,
    compiling_for,
    count_costs,
    create_topology,
    memory_of,
)
from dig_jax.costs.summary import count_costs as count_macs
from dig_jax.experiment import create_experiment


class Variant(NamedTuple):
    """What differs between two rows of the table."""

    topology: str
    config: str
    image_size: int
    aggregation: str
    blocks: str


class Program(NamedTuple):
    """A compiled step: what it does, what it holds, the MACs that it is about."""

    costs: Costs
    memory: Memory
    macs: float
    attention_macs: float
    num_nodes: int
    compile_seconds: float


def make_config(variant: Variant, options: argparse.Namespace) -> ConfigDict:
    """The configuration with a variant's network."""
    config = load_config_file(variant.config)
    backbone = config.backbone
    backbone.update(BLOCKS[variant.blocks])
    backbone.depth = options.depth or backbone.depth
    if "aggregation" in backbone:
        kind = variant.aggregation
        backbone.aggregation = "stencil" if kind == "none" else kind
    if "attention" in backbone and options.attention != "free":
        backbone.attention = options.attention
    config.data.image_size = variant.image_size or config.data.image_size
    if options.node_multiple and "node_multiple" in backbone:
        backbone.node_multiple = options.node_multiple
    return config


def compile_variant(
    variant: Variant, topology: Topology, options: argparse.Namespace, batch: int
) -> Program:
    """A step of `batch` images on each device.

    Raises:
        DoesNotFitError: It needs more memory than there is.
    """
    start = time.perf_counter()
    mesh = topology.mesh(None if options.all_devices else 1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(compiling_for(topology.platform, topology.gpu))
        if variant.aggregation == "none":
            stack.enter_context(aggregation_off())
        if options.attention == "free":
            stack.enter_context(attention_left_out())
        experiment = create_experiment(make_config(variant, options))
        step = compile_train_step(experiment, mesh, batch_size=batch * mesh.size)
    backbone = experiment.backbone
    counted = count_macs(backbone)
    return Program(
        count_costs(step),
        memory_of(step),
        counted.macs,
        counted.attention_macs,
        backbone.graph.num_nodes if backbone.graph else 0,
        time.perf_counter() - start,
    )


def largest_batch(
    variant: Variant, topology: Topology, options: argparse.Namespace, one: Program
) -> int:
    """The largest batch of a device, to within 2%, by compiling ever closer guesses."""

    def peak(batch: int) -> float:
        try:
            memory = compile_variant(variant, topology, options, batch).memory
        except DoesNotFitError:
            return math.inf
        return memory.peak

    fits, fitting = options.batch, float(one.memory.peak)
    too_large = math.inf
    per_image = (fitting - one.memory.arguments) / fits
    while too_large - fits > max(1, fits // 50):
        room = topology.chip.hbm_bytes - fitting
        guess = fits + max(1, int(room / per_image))
        if too_large < math.inf:
            guess = min(guess, int(too_large + fits) // 2)
        needed = peak(guess)
        if needed < topology.chip.hbm_bytes:
            per_image = max((needed - fitting) / (guess - fits), per_image / 4)
            fits, fitting = guess, needed
        else:
            too_large = guess
    return fits


def describe(
    variant: Variant, topology: Topology, program: Program, batch: int, free: bool
) -> dict[str, Any]:
    """The table's row of a variant."""
    costs, chip, memory = program.costs, topology.chip, program.memory
    flops, cycles = costs.flops, costs.cycles
    if free:
        added = left_out_flops(batch * program.attention_macs)
        flops, cycles = flops + added, cycles + added / chip.flops * (chip.clock or 0)
    seconds = cycles / chip.clock if chip.clock else 0.0
    return {
        **variant._asdict(),
        "nodes": program.num_nodes,
        "GMAC": round((program.macs + program.attention_macs) / 1e9, 3),
        "TFLOP": round(flops / 1e12, 3),
        "GB": round(costs.memory_bytes / 1e9, 3),
        "Mcycles": round(cycles / 1e6, 2),
        "ms": round(seconds * 1e3, 2),
        "share": round(flops / chip.flops / seconds, 3) if seconds else "",
        "memory, ms": round(costs.memory_bytes / chip.hbm_bandwidth * 1e3, 2),
        "temporaries, MB": round(memory.temporaries / 1e6),
        "scatters": costs.operations["scatter"],
        "transposes": costs.operations["transpose"],
        "copies": costs.operations["copy"],
        "collectives, MB": round(sum(costs.collective_bytes.values()) / 1e6, 2),
        "compile, s": round(program.compile_seconds),
    }


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each variant, "none" first where it is asked for."""
    for name in options.topology:
        topology = create_topology(name)
        for config, size, blocks in itertools.product(
            options.config, options.image_size, options.blocks
        ):
            floor: dict[str, Any] | None = None
            for kind in options.aggregation:
                variant = Variant(name, config, size, kind, blocks)
                program = compile_variant(variant, topology, options, options.batch)
                free = options.attention == "free"
                row = describe(variant, topology, program, options.batch, free)
                floor = row if kind == "none" else floor
                for key in ("Mcycles", "GB"):
                    ratio = row[key] / floor[key] if floor and floor[key] else ""
                    row[f"{key} over none"] = ratio and round(ratio, 3)
                if options.largest_batch:
                    most = largest_batch(variant, topology, options, program)
                    row["largest batch"] = most
                if options.kinds:
                    by_kind = sorted(
                        program.costs.cycles_by_kind.items(), key=lambda item: -item[1]
                    )
                    row["kinds"] = {k: round(v / 1e6, 3) for k, v in by_kind}
                yield row


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default=["v5e:1x1"], type=words)
    parser.add_argument(
        "--config", default=["configs/cifar10.py:dig_parallel_2_4"], type=words
    )
    parser.add_argument("--image_size", default=[0], type=numbers, help="0: config's")
    kinds = ["none", "dense", "stencil", "segment"]
    parser.add_argument("--aggregation", default=kinds, type=words)
    parser.add_argument("--attention", default="auto", help="or free, or a kernel")
    parser.add_argument("--depth", type=int, default=2, help="0: the config's")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--blocks", default=["unrolled"], type=words)
    parser.add_argument("--node_multiple", type=int, default=0, help="0: the config's")
    parser.add_argument("--all_devices", action="store_true")
    parser.add_argument("--largest_batch", action="store_true")
    parser.add_argument("--kinds", action="store_true", help="cycles by kind")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = []
    for row in measure(options):
        print(row, flush=True)
        rows.append(row)
        write_json(options.out, rows, options)
    print()
    print_table([{k: v for k, v in row.items() if k != "kinds"} for row in rows])


if __name__ == "__main__":
    main()
