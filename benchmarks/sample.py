"""Sampling: each solver, and what the loop adds to the network's own time.

    python benchmarks/sample.py [--config=configs/digits.py] [--depth=0] [--batch=16]
        [--dtype=mixed] [--solvers=euler_maruyama:1000,...] [--batches=1,16,64]
        [--repeats=3] [--clock=wall|cpu] [--out=FILE.json]

"network" is as many calls of the compiled network as the solver makes, from Python,
each given what the one before returned; "loop" is `dig_jax.solvers.sample`, one
`lax.scan`; "Python" calls a compiled step of the solver (one evaluation a step only).
The second table has the loop at other batch sizes, 50 evaluations of DPM-Solver.
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import (
    compile_for,
    describe_machine,
    numbers,
    paired_ratio,
    print_table,
    seconds_in_turn,
    write_json,
)

from dig_jax.config import load_config_file
from dig_jax.diffusion import make_denoiser
from dig_jax.experiment import Experiment, create_experiment
from dig_jax.solvers import (
    SOLVERS,
    create_solver,
    create_times,
    default_time_grid,
    sample,
)

STEPS = {"euler_maruyama": 1000, "heun": 25}  # the others: 50


class Sampling:
    """The ways to spend a solver's evaluations on a batch of images."""

    def __init__(self, experiment: Experiment, name: str, steps: int, batch: int):
        self.experiment = experiment
        self.solver = create_solver(name, experiment.sde, steps)
        self.evaluations = sum(self.solver.evaluations)
        num_steps = len(self.solver.evaluations)
        ends = dict(t_start=1.0, t_end=1e-3)
        grid = default_time_grid(name, experiment.sde, **ends)
        self.times = create_times(grid, experiment.sde, num_steps, **ends)
        backbone = experiment.backbone
        self.params = jax.jit(backbone.init)(jax.random.key(0))
        self.keys = jax.random.split(jax.random.key(1), batch)
        self.x = jnp.zeros((batch, *backbone.image_shape))
        classes = backbone.num_classes
        self.label = jnp.arange(batch) % classes if classes else None

    def denoiser(self, params: Any) -> Callable:
        """E[x0 | x_t] with these parameters."""
        experiment = self.experiment
        return make_denoiser(
            experiment.backbone.apply,
            params,
            experiment.sde,
            experiment.objective,
            self.label,
        )

    def network(self) -> Callable:
        """The network as often as the solver evaluates it."""
        apply, batch = self.experiment.backbone.apply, len(self.x)
        call = compile_for(apply, self.params, self.x, jnp.ones(batch), self.label).call
        t = jnp.full(batch, 0.5)

        def run() -> jax.Array:
            x = self.x
            for _ in range(self.evaluations):
                x = call(self.params, x, t, self.label)
            return x

        return run

    def loop(self) -> Callable:
        """The sampler."""
        experiment = self.experiment
        shape = experiment.backbone.image_shape

        def draw(params: Any, keys: jax.Array) -> jax.Array:
            denoise = self.denoiser(params)
            return sample(
                denoise, self.solver, self.times, keys, shape, sde=experiment.sde
            )

        call = compile_for(draw, self.params, self.keys).call
        return lambda: call(self.params, self.keys)

    def python(self) -> Callable:
        """A compiled step for each step."""

        def step(params: Any, x: jax.Array, state: Any, t: Any, s: Any, key: Any):
            def noise(index: int = 0) -> jax.Array:
                return jax.random.normal(jax.random.fold_in(key, index), x.shape)

            return self.solver.step(self.denoiser(params), x, state, t, s, noise)

        times = [jnp.asarray(t, jnp.float32) for t in self.times]
        start = self.solver.init(self.x)
        first = (self.params, self.x, start, times[0], times[1], self.keys[0])
        call = compile_for(step, *first).call

        def run() -> jax.Array:
            x, state = self.x, start
            for t, s in itertools.pairwise(times):
                x, state = call(self.params, x, state, t, s, self.keys[0])
            return x

        return run


def compare_solvers(
    experiment: Experiment, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each solver."""
    rows = []
    for name, steps in options.solvers:
        sampling = Sampling(experiment, name, steps, options.batch)
        runs = {"network": sampling.network(), "loop": sampling.loop()}
        if set(sampling.solver.evaluations) == {1}:
            runs["Python"] = sampling.python()
        times = seconds_in_turn(runs, repeats=options.repeats, clock=options.clock)
        seconds = float(np.median(times["loop"]))
        python = times.get("Python")
        rows.append(
            {
                "solver": name,
                "evaluations": sampling.evaluations,
                "ms an image": round(seconds / options.batch * 1e3, 1),
                "loop over network": round(
                    paired_ratio(times["loop"], times["network"]), 3
                ),
                "Python over network": round(paired_ratio(python, times["network"]), 3)
                if python
                else "",
            }
        )
    return rows


def compare_batches(
    experiment: Experiment, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each batch size."""
    runs = {
        batch: Sampling(experiment, "dpm_solver", 50, batch).loop()
        for batch in options.batches
    }
    times = seconds_in_turn(runs, repeats=options.repeats, clock=options.clock)
    return [
        {"batch": batch, "ms an image": round(np.median(times[batch]) / batch * 1e3, 1)}
        for batch in options.batches
    ]


def parse_solvers(text: str) -> list[tuple[str, int]]:
    """`name:steps,name:steps`."""
    pairs = (word.partition(":") for word in text.split(","))
    return [(name, int(steps or STEPS.get(name, 50))) for name, _, steps in pairs]


def main() -> None:
    """Print two tables in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--depth", type=int, default=0, help="0: the config's")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", default="mixed")
    solvers = parse_solvers(",".join(SOLVERS))
    parser.add_argument("--solvers", default=solvers, type=parse_solvers)
    parser.add_argument("--batches", default=[1, 4, 16, 64], type=numbers)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    config = load_config_file(options.config)
    config.backbone.update(
        dtype=options.dtype, depth=options.depth or config.backbone.depth
    )
    experiment = create_experiment(config)
    print(f"{describe_machine()}; {options.config}, {options.dtype}\n")
    rows = compare_solvers(experiment, options)
    print_table(rows)
    print()
    batches = compare_batches(experiment, options)
    print_table(batches)
    write_json(options.out, rows + batches, options)


if __name__ == "__main__":
    main()
