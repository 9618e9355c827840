"""The training step: each aggregation, dtype and way to run the blocks.

    python benchmarks/train_step.py [--config=configs/cifar10.py:dig_parallel_2_4]
        [--depth=12] [--batch=8] [--dtype=float32,mixed] [--conv=sage]
        [--aggregation=none,stencil,dense,segment] [--blocks=unrolled,scan,remat]
        [--work=step,forward] [--repeats=5] [--clock=wall|cpu] [--out=FILE.json]

A step is forward, backward, AdamW and EMA; forward is the network alone. "none" scales
the features instead: what is left is the matrix products' step. Operations are the
network's multiply-accumulates (`dig_jax.costs.summary`), counted twice for forward and
six times for a step, without aggregation and recomputation; "share" is of the rate of
plain products of its operands' type, measured in the same rounds. Aggregations are
measured unrolled; scan (of one block a turn) and remat with the stencil alone.
"""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from common import (
    Compiled,
    aggregation_off,
    compile_for,
    describe_machine,
    make_products,
    paired_ratio,
    print_table,
    seconds_in_turn,
    words,
    write_json,
)
from ml_collections import ConfigDict

from dig_jax.config import load_config_file
from dig_jax.costs.summary import count_costs
from dig_jax.experiment import Experiment, create_experiment
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state, make_train_step

BLOCKS = {
    "unrolled": dict(unroll=0, remat=False),
    "scan": dict(unroll=1, remat=False),
    "remat": dict(unroll=0, remat=True),
    "scan remat": dict(unroll=1, remat=True),
}


class Variant(NamedTuple):
    """What differs between two rows of the table."""

    work: str
    dtype: str
    aggregation: str
    blocks: str


def list_variants(options: argparse.Namespace) -> list[Variant]:
    """Each aggregation unrolled, each other way to run the blocks with the first."""
    variants = []
    for work in options.work:
        for dtype in options.dtype:
            variants += [
                Variant(work, dtype, kind, options.blocks[0])
                for kind in options.aggregation
            ]
            kind = next((k for k in options.aggregation if k != "none"), "none")
            variants += [
                Variant(work, dtype, kind, blocks) for blocks in options.blocks[1:]
            ]
    return variants


def make_experiment(config: ConfigDict, variant: Variant) -> Experiment:
    """The configuration's experiment with a variant's network."""
    config = ConfigDict(config)
    config.backbone.update(dtype=variant.dtype, **BLOCKS[variant.blocks])
    if "aggregation" in config.backbone:
        kind = variant.aggregation
        config.backbone.aggregation = "stencil" if kind == "none" else kind
    return create_experiment(config)


def compile_variant(
    config: ConfigDict, variant: Variant, state: Any, batch: int
) -> Compiled:
    """A step from state to state, or the network's forward pass."""
    experiment = make_experiment(config, variant)
    backbone = experiment.backbone
    x = jnp.zeros((batch, *backbone.image_shape))
    label = jnp.zeros(batch, jnp.int32)
    off = variant.aggregation == "none"
    with aggregation_off() if off else contextlib.nullcontext():
        if variant.work == "forward":
            given = label if backbone.num_classes else None
            arguments = (state.params, x, jnp.ones(batch), given)
            return compile_for(backbone.apply, *arguments)
        optimizer = create_optimizer(num_steps=1000)
        step = make_train_step(experiment, optimizer, jax.random.key(0), 0.9999)
        return compile_for(step, state, x.astype(jnp.uint8), label, donate=(0,))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each variant; all of them take turns, and share one state."""
    config = load_config_file(options.config)
    config.backbone.depth = options.depth or config.backbone.depth
    if options.conv:
        config.backbone.conv = options.conv
    variants = list_variants(options)
    experiment = make_experiment(config, variants[0])
    state = create_state(
        experiment, create_optimizer(num_steps=1000), jax.random.key(1)
    )
    shape, batch = experiment.backbone.image_shape, options.batch
    x, label = jnp.zeros((batch, *shape)), jnp.zeros(batch, jnp.int32)
    given = label if experiment.backbone.num_classes else None

    def runner(variant: Variant, compiled: Compiled) -> Callable[[], Any]:
        def run() -> Any:
            nonlocal state
            if variant.work == "forward":
                return compiled.call(state.params, x, jnp.ones(batch), given)
            state, metrics = compiled.call(state, x.astype(jnp.uint8), label)
            return metrics

        return run

    compiled = {v: compile_variant(config, v, state, batch) for v in variants}
    products = {dtype: make_products(dtype) for dtype in options.dtype}
    # Products between the variants: what they could reach at that time.
    runs = {v: runner(v, compiled[v]) for v in variants}
    runs |= {dtype: products[dtype].run for dtype in options.dtype}
    times = seconds_in_turn(runs, repeats=options.repeats, clock=options.clock)
    costs = count_costs(experiment.backbone)
    return [
        describe(
            variant,
            compiled[variant],
            times,
            flops=2.0 * batch * (costs.macs + costs.attention_macs),
            product_flops=products[variant.dtype].flops,
            batch=batch,
        )
        for variant in variants
    ]


def describe(
    variant: Variant,
    compiled: Compiled,
    times: dict[Any, list[float]],
    *,
    flops: float,
    product_flops: float,
    batch: int,
) -> dict[str, Any]:
    """The table's row of a variant."""
    mine, floor = times[variant], times.get(variant._replace(aggregation="none"))
    flops *= 3 if variant.work == "step" else 1
    seconds = sorted(mine)[len(mine) // 2]
    # Both rates of a round, so that its load falls on both.
    share = (flops / product_flops) / paired_ratio(mine, times[variant.dtype])
    return {
        **variant._asdict(),
        "ms": round(seconds * 1e3),
        "images/s": round(batch / seconds, 2),
        "over none": round(paired_ratio(mine, floor), 3) if floor else "",
        "GFLOP/s": round(flops / seconds / 1e9),
        "share": round(share, 2),
        "peak, MB": round(compiled.memory.peak / 1e6),
        "compile, s": round(compiled.seconds, 1),
    }


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/cifar10.py:dig_parallel_2_4")
    parser.add_argument("--depth", type=int, default=0, help="0: the config's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default=["float32", "mixed"], type=words)
    parser.add_argument("--conv", default="", help="'': the config's")
    kinds = ["none", "stencil", "dense", "segment"]
    parser.add_argument("--aggregation", default=kinds, type=words)
    parser.add_argument("--blocks", default=["unrolled"], type=words)
    parser.add_argument("--work", default=["step"], type=words)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = measure(options)
    print(f"{describe_machine()}; {options.config}, batch {options.batch}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
