"""The kernels of a training step compiled for a GPU that is not there.

    JAX_PLATFORMS=cpu python benchmarks/kernels.py [--topology=h100:1]
        [--config=configs/cifar10.py:dig_parallel_2_4,...] [--depth=2] [--batch=256]
        [--dtype=bfloat16] [--attention=xla] [--largest=0] [--out=FILE.json]

One table: how many kernels a step starts, those that move less than a megabyte apart;
bytes from and to memory, by kind of kernel; temporaries. Each network is compiled at
--depth and at two blocks more, so that the row "a block" is what a block adds.
--largest=20 lists the kernels that move most, equal ones together.

Nothing runs, and nothing is tuned: on a card XLA tries each product as a Triton kernel
and by cuBLAS, and takes the faster; without one it takes Triton for nearly all of them,
with tiles of its own guess. --attention=cudnn compiles cuDNN's calls, seen from outside
alone: what they move inside is not counted.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from common import print_table, words, write_json

from dig_jax.config import load_config_file
from dig_jax.costs import (
    Kernel,
    Tally,
    Topology,
    compile_train_step,
    compiling_for,
    count_costs,
    create_topology,
    list_kernels,
    memory_of,
    tally_by_kind,
)
from dig_jax.experiment import create_experiment

NETWORKS = "dig_parallel_2_4", "dig_mix_2_4", "uvit_2", "dit_2"
SMALL = 1e6  # bytes: less than a microsecond of an H100's memory
KINDS = (
    "Triton product",
    "Triton",
    "cuBLAS",
    "cuDNN",
    "loop",
    "reduction",
    "rearrangement",
)


class Step(NamedTuple):
    """A compiled training step."""

    kernels: list[Kernel]
    flops: float
    temporaries: int


def compile_step(
    config_file: str, depth: int, topology: Topology, options: argparse.Namespace
) -> Step:
    """A step on one chip."""
    config = load_config_file(config_file)
    config.backbone.update(depth=depth, dtype=options.dtype)
    if "attention" in config.backbone:
        config.backbone.attention = options.attention
    with compiling_for(topology.platform, topology.gpu):
        compiled = compile_train_step(
            create_experiment(config), topology.mesh(1), batch_size=options.batch
        )
    kernels = list_kernels(compiled)
    return Step(kernels, count_costs(compiled).flops, memory_of(compiled).temporaries)


def describe(step: Step) -> dict[str, Any]:
    """Numbers of a step; kinds that are not in KINDS are one, "other"."""
    by_kind = tally_by_kind(step.kernels)
    small = [k.times for k in step.kernels if k.memory_bytes < SMALL]
    numbers: dict[str, Any] = {
        "kernels": sum(tally.launches for tally in by_kind.values()),
        "under 1 MB": sum(small),
        "GB": sum(tally.memory_bytes for tally in by_kind.values()) / 1e9,
        "temporaries, GB": step.temporaries / 1e9,
        "TFLOP": step.flops / 1e12,
    }
    rest = by_kind.keys() - set(KINDS)
    for kind in KINDS:
        numbers[kind] = _in_words(by_kind.get(kind, Tally()))
    numbers["other"] = _in_words(
        Tally(
            sum(by_kind[kind].launches for kind in rest),
            sum(by_kind[kind].memory_bytes for kind in rest),
        )
    )
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in numbers.items()}


def per_block(less: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What each of two blocks more adds."""
    added: dict[str, Any] = {}
    for key, value in more.items():
        if isinstance(value, str):
            pairs = zip(value.split(": "), less[key].split(": "), strict=True)
            launches, gigabytes = ((float(a) - float(b)) / 2 for a, b in pairs)
            added[key] = f"{launches:g}: {gigabytes:.2f}"
        else:
            added[key] = round((value - less[key]) / 2, 3)
    return added


def _in_words(tally: Tally) -> str:
    return f"{tally.launches}: {tally.memory_bytes / 1e9:.2f}"


def print_largest(kernels: list[Kernel], count: int) -> None:
    """Kernels of one kind and result together, those first that move most."""
    launches: Counter = Counter()
    moved: Counter = Counter()
    for kernel in kernels:
        source = "/".join(kernel.source.split("/")[-2:])
        what = kernel.kind, kernel.results, source
        launches[what] += kernel.times
        moved[what] += kernel.times * kernel.memory_bytes
    for what, total in moved.most_common(count):
        print(f"{total / 1e9:8.3f} GB in {launches[what]:3d}: {', '.join(what)}")


def measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two rows for each network: the step, and a block of it."""
    topology = create_topology(options.topology)
    for config in options.config:
        name = config.rpartition(":")[2]
        rows = []
        for depth in (options.depth, options.depth + 2):
            step = compile_step(config, depth, topology, options)
            rows.append(describe(step))
            if depth == options.depth:
                print_largest(step.kernels, options.largest)
        yield {"network": name, "depth": options.depth, **rows[0]}
        yield {"network": name, "depth": "a block", **per_block(*rows)}


def main() -> None:
    """Print a table in Markdown; kinds as launches: gigabytes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="h100:1")
    networks = [f"configs/cifar10.py:{name}" for name in NETWORKS]
    parser.add_argument("--config", default=networks, type=words)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--attention", default="xla")
    parser.add_argument("--largest", type=int, default=0, help="kernels to list")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = []
    for row in measure(options):
        print(row, flush=True)
        rows.append(row)
    print()
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
