"""DiG-parallel, DiG-mix, U-ViT and DiT at equal multiply-accumulates.

    python benchmarks/compare_backbones.py [--depth=4] [--batch=8] [--dtype=mixed]
        [--repeats=5] [--clock=wall|cpu] [--out=FILE.json]

CIFAR-10 sizes: width 512, patches of 2 pixels (DiG: {2, 4}, K = 2). DiG-parallel has
the depth that is asked for; each of the others the depth whose multiply-accumulates,
attention's included, are nearest to its; what differs still is taken out of the times,
in proportion. Training is a whole step, with AdamW and EMA; sampling is Euler-Maruyama,
for which an image's time is given for one evaluation of the network, over 8.
"""

import argparse
from typing import Any

import jax
import numpy as np
from common import (
    Compiled,
    compile_for,
    compile_step,
    describe_machine,
    print_table,
    seconds_in_turn,
    total_macs,
    write_json,
)
from ml_collections import ConfigDict

from dig_jax.config import load_config_file
from dig_jax.diffusion import make_denoiser
from dig_jax.experiment import Experiment, create_experiment
from dig_jax.solvers import create_solver, create_times, sample

VARIANTS = ("dig_parallel_2_4", "dig_mix_2_4", "uvit_2", "dit_2")
EVALUATIONS = 8


def load(variant: str, depth: int, dtype: str) -> Experiment:
    """The paper's configuration of a backbone with another depth."""
    config = ConfigDict(load_config_file(f"configs/cifar10.py:{variant}"))
    config.backbone.update(depth=depth, dtype=dtype)
    return create_experiment(config)


def at_equal_macs(variant: str, macs: int, dtype: str) -> Experiment:
    """The depth whose multiply-accumulates are nearest; they grow linearly."""
    two, four = (total_macs(load(variant, depth, dtype)) for depth in (2, 4))
    unit = 1 if variant.startswith("dit") else 2  # the others need an even depth
    depth = 2 + unit * round(2 / unit * (macs - two) / (four - two))
    return load(variant, max(2, depth), dtype)


def compile_sampler(experiment: Experiment, batch: int) -> tuple[Compiled, list]:
    """The sampler and its arguments."""
    backbone, sde = experiment.backbone, experiment.sde
    solver = create_solver("euler_maruyama", sde, EVALUATIONS)
    times = create_times("uniform", sde, EVALUATIONS)

    def draw(params: Any, keys: jax.Array) -> jax.Array:
        denoise = make_denoiser(backbone.apply, params, sde, experiment.objective)
        return sample(denoise, solver, times, keys, backbone.image_shape, sde=sde)

    params = jax.jit(backbone.init)(jax.random.key(0))
    arguments = [params, jax.random.split(jax.random.key(0), batch)]
    return compile_for(draw, *arguments), arguments


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each backbone; all take turns."""
    first = load(VARIANTS[0], options.depth, options.dtype)
    macs = total_macs(first)
    experiments = {VARIANTS[0]: first} | {
        v: at_equal_macs(v, macs, options.dtype) for v in VARIANTS[1:]
    }
    compiled, runs = {}, {}
    for variant, experiment in experiments.items():
        for work, make in (("training", compile_step), ("sampling", compile_sampler)):
            compiled[variant, work], arguments = make(experiment, options.batch)

            def run(call=compiled[variant, work].call, work=work, a=arguments):
                out = call(*a)
                if work == "training":
                    a[0], out = out
                return out

            runs[variant, work] = run
    times = seconds_in_turn(runs, repeats=options.repeats, clock=options.clock)
    rows = []
    for variant, experiment in experiments.items():
        share = total_macs(experiment) / macs
        row: dict[str, Any] = {
            "backbone": variant,
            "depth": experiment.config.backbone.depth,
            "GMACs": round(total_macs(experiment) / 1e9, 2),
        }
        for work, evaluations in (("training", 1), ("sampling", EVALUATIONS)):
            seconds = float(np.median(times[variant, work])) / share / evaluations
            row |= {
                f"{work}, images/s": round(options.batch / seconds, 1),
                f"{work}, MB": round(compiled[variant, work].memory.peak / 1e6),
            }
        rows.append(row)
    return rows


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", default="mixed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = measure(options)
    print(f"{describe_machine()}; batch {options.batch}, {options.dtype}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
