"""Train-step time of each aggregation over the same step with none.

    python benchmarks/aggregation.py [--conv=sage] [--depth=4] [--batch=8]
        [--repeats=15]

Forward, backward, AdamW and EMA at CIFAR-10 sizes (width 512, K = 2). "none" hands the
features on unchanged: what is left is the matrix products' step.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
from common import describe_machine, median_seconds
from ml_collections import ConfigDict

from dig_jax.config import load_config_file
from dig_jax.experiment import create_experiment
from dig_jax.models import aggregation
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state, make_train_step

KINDS = ("none", "stencil", "dense", "segment")


def make_step(config: ConfigDict, kind: str, batch: int):
    """A compiled step that carries its state along; call it to run one."""
    config = ConfigDict(config)
    config.backbone.aggregation = "stencil"
    aggregation_of = aggregation.AGGREGATIONS["stencil"]
    aggregation.AGGREGATIONS["stencil"] = (
        (lambda graph, normalization: lambda h: h)
        if kind == "none"
        else aggregation.AGGREGATIONS[kind]
    )
    experiment = create_experiment(config)
    optimizer = create_optimizer(num_steps=1000)
    step = make_train_step(experiment, optimizer, jax.random.key(0), 0.9999)
    state = create_state(experiment, optimizer, jax.random.key(1))
    image = jnp.zeros((batch, *experiment.backbone.image_shape), jnp.uint8)
    label = jnp.zeros(batch, jnp.int32)
    compiled = jax.jit(step, donate_argnums=0).lower(state, image, label).compile()
    aggregation.AGGREGATIONS["stencil"] = aggregation_of

    def run():
        nonlocal state
        state, metrics = compiled(state, image, label)
        return metrics

    return run


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conv", default="sage")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(
        f"{describe_machine()}; {options.conv}, depth {options.depth}, batch "
        f"{options.batch}\n"
    )
    print("| backbone | dtype | none, ms | " + " | ".join(KINDS[1:]) + " |")
    print("|---|---|---|" + "---|" * len(KINDS[1:]))
    for name in ("dig_parallel", "dig_mix"):
        for dtype in ("float32", "mixed"):
            config = load_config_file(f"configs/cifar10.py:{name}_2_4")
            config.backbone.update(dtype=dtype, depth=options.depth, conv=options.conv)
            make = partial(make_step, config, batch=options.batch)
            seconds = median_seconds(
                {kind: make(kind) for kind in KINDS}, repeats=options.repeats
            )
            floor = seconds["none"]
            ratios = " | ".join(f"{seconds[kind] / floor:.2f}" for kind in KINDS[1:])
            print(f"| {name} | {dtype} | {floor * 1e3:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
