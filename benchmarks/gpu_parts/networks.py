"""The networks of the tables: compiled side by side, timed in turn."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import aggregation_off, total_macs

from dig_jax.config import load_config_file
from dig_jax.costs import memory_of
from dig_jax.devices.sharding import MeshOptions, create_mesh
from dig_jax.experiment import Experiment, create_experiment
from dig_jax.training.programs import TrainingPrograms, create_programs
from gpu_parts.report import first_line

CONFIG = Path(__file__).parents[2] / "configs" / "cifar10.py"
STEP, FORWARD = "step", "forward"


class Network(NamedTuple):
    """A row of the tables.

    Attributes:
        name: In the table.
        variant: Of configs/cifar10.py.
        changes: Of its backbone section, beside the sizes.
        aggregates: False where features are scaled instead.
    """

    name: str
    variant: str
    changes: Mapping[str, Any] = MappingProxyType({})
    aggregates: bool = True


def parallel(name: str, **changes: Any) -> Network:
    """DiG-parallel {2, 4}."""
    aggregation = changes.pop("aggregation", "stencil")
    changes = {"aggregation": aggregation, **changes}
    return Network(f"DiG-parallel {name}", "dig_parallel_2_4", changes)


STENCIL = parallel("stencil")
NONE = STENCIL._replace(name="DiG-parallel none", aggregates=False)
UVIT, DIT = Network("U-ViT/2 auto", "uvit_2"), Network("DiT/2", "dit_2")
MIX = Network("DiG-mix auto", "dig_mix_2_4")


class Sizes(NamedTuple):
    """What all networks share.

    Attributes:
        batch: Images.
        depth, width: Of the networks; 0 for the configuration's.
        count: Steps that are queued in each measurement.
        repeats: Measurements, of which the median is taken.
    """

    batch: int
    depth: int
    width: int
    count: int
    repeats: int


def experiment_of(network: Network, sizes: Sizes) -> Experiment:
    """In bfloat16 unless the network says otherwise."""
    config = load_config_file(f"{CONFIG}:{network.variant}")
    changes = {"dtype": "bfloat16", **network.changes}
    if sizes.depth:
        changes["depth"] = sizes.depth
    if sizes.width:
        changes["width"] = sizes.width
    config.backbone.update(changes)
    return create_experiment(config)


def macs_of(network: Network, sizes: Sizes) -> int:
    """Multiply-accumulates of an image as `dig_jax.costs.summary` counts them, with
    attention's two products; aggregation is none, however it is computed.
    """
    if "aggregation" in network.changes:
        network = network._replace(
            changes={**network.changes, "aggregation": "stencil"}
        )
    return total_macs(experiment_of(network, sizes))


class Program(NamedTuple):
    """A compiled program that runs again and again.

    Attributes:
        run: Queues `Sizes.count` of it.
        temporaries: Bytes that it needs beside arguments and results.
        compiled: What XLA made.
    """

    run: Callable[[], object]
    temporaries: int
    compiled: jax.stages.Compiled


class Bench:
    """Compiles steps and forward passes; networks with one tree of parameters share it.

    Args:
        sizes: Batch, depth, width, how often.
        device: Which device; the first one by default.
    """

    def __init__(self, sizes: Sizes, device: Any = None) -> None:
        self.sizes = sizes
        self._mesh = create_mesh(MeshOptions(1, 1), [device or jax.devices()[0]])
        self._states: dict[Any, list] = {}

    def compile(
        self, wanted: Iterable[tuple[Network, str]]
    ) -> dict[tuple[str, str], Program | str]:
        """Each network's step or forward pass by its name, or why there is none.

        Traced one after the other, compiled in threads meanwhile.
        """
        futures: dict[tuple[str, str], tuple[Any, Future]] = {}
        found: dict[tuple[str, str], Program | str] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for network, work in wanted:
                key = network.name, work
                try:
                    lowered, run = self._lower(network, work)
                    futures[key] = run, pool.submit(lowered.compile)
                except Exception as error:  # of this network alone
                    found[key] = first_line(error)
        for key, (run, future) in futures.items():
            try:
                compiled = future.result()
                temporaries = memory_of(compiled).temporaries
                found[key] = Program(run(compiled), temporaries, compiled)
            except Exception as error:
                found[key] = first_line(error)
        return found

    def _lower(
        self, network: Network, work: str
    ) -> tuple[jax.stages.Lowered, Callable[[jax.stages.Compiled], Callable]]:
        sizes = self.sizes
        with contextlib.nullcontext() if network.aggregates else aggregation_off():
            experiment = experiment_of(network, sizes)
            programs = create_programs(experiment, self._mesh, batch_size=sizes.batch)
            if work == STEP:
                lowered = programs.lower_step()
                return lowered, lambda compiled: self._stepper(programs, compiled)
            x = jax.random.normal(jax.random.key(0), self._shape(programs))
            t = jnp.linspace(0.0, 1.0, sizes.batch)
            apply = jax.jit(
                lambda params, x, t: experiment.backbone.apply(params, x, t, None)
            )
            lowered = apply.lower(programs.abstract_state.params, x, t)

        def runner(compiled: jax.stages.Compiled) -> Callable:
            def run() -> object:
                params = self._state_of(programs)[0].params
                return [compiled(params, x, t) for _ in range(sizes.count)][-1]

            return run

        return lowered, runner

    def _stepper(
        self, programs: TrainingPrograms, compiled: jax.stages.Compiled
    ) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        image, label = programs.abstract_batch
        images = rng.integers(0, 256, image.shape, np.uint8)
        batch = jax.device_put(
            (images, np.zeros(label.shape, np.int32)), (image.sharding, label.sharding)
        )

        def run() -> object:
            holder, metrics = self._state_of(programs), None
            for _ in range(self.sizes.count):
                holder[0], metrics = compiled(holder[0], *batch)
            return metrics

        return run

    def _shape(self, programs: TrainingPrograms) -> tuple[int, ...]:
        return self.sizes.batch, *programs.experiment.backbone.image_shape

    def _state_of(self, programs: TrainingPrograms) -> list:
        """A list with a random state of these shapes; steps put the next one there."""
        shapes = programs.abstract_state
        key = str(jax.tree.map(lambda leaf: leaf.shape, shapes))
        if key not in self._states:
            self._states[key] = [random_state(shapes)]
        return self._states[key]


def random_state(shapes: Any) -> Any:
    """A state whose parameters are random: a card is faster on zeros."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if not name.startswith((".params", ".ema")):
            values = np.zeros(leaf.shape, leaf.dtype)
        elif name.endswith("scale']"):
            values = np.ones(leaf.shape, leaf.dtype)
        else:
            values = 0.02 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(values, leaf.sharding)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def warmed_up(programs: dict[Any, Program | str]) -> dict[Any, Program | str]:
    """The same after a run of each; one that fails is replaced by why."""
    tried = dict(programs)
    for key, program in programs.items():
        if isinstance(program, str):
            continue
        try:
            jax.block_until_ready(program.run())
        except Exception as error:  # too little memory, a kernel that does not start
            tried[key] = first_line(error)
    return tried


def seconds_since(start: float) -> float:
    """Rounded for a table."""
    return round(time.perf_counter() - start, 1)
