"""What the benchmarks share: timing in turns, this machine's rates, tables, steps."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from table import print_table as print_table

from dig_jax.costs import Memory, memory_of
from dig_jax.costs.summary import count_costs
from dig_jax.experiment import Experiment
from dig_jax.graphs import Graph, GridGraph, RelationalGraph
from dig_jax.models import attention, relational_blocks
from dig_jax.ops import aggregation
from dig_jax.ops import relations as relations_of
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state, make_train_step

PRODUCT_SIZE = (2048, 512, 1536)  # rows, width, MLP's width at 8 CIFAR-10 images


Clock: TypeAlias = Literal["wall", "cpu"]
"""wall: seconds. cpu: seconds of the processor over the number of cores, which other
processes on a busy machine touch less; idle cores do not count."""


def seconds_in_turn(
    variants: Mapping[Any, Callable[[], object]],
    *,
    repeats: int,
    clock: Clock = "wall",
    pause: float = 0.0,
) -> dict[Any, list[float]]:
    """Times of each variant, run in turn so that drift hits all alike.

    Args:
        variants: Functions that return arrays of the device, or trees of them.
        repeats: Rounds after one that is not counted.
        clock: What is measured.
        pause: Seconds before each run, in which threads of the one before go to sleep.
    """
    now = time.perf_counter if clock == "wall" else time.process_time
    parts = 1 if clock == "wall" else len(os.sched_getaffinity(0))
    times: dict[Any, list[float]] = {name: [] for name in variants}
    for round_ in range(repeats + 1):
        for name, run in variants.items():
            time.sleep(pause)
            start = now()
            jax.block_until_ready(run())
            if round_:
                times[name].append((now() - start) / parts)
    return times


def median_seconds(
    variants: Mapping[Any, Callable[[], object]], *, repeats: int
) -> dict[Any, float]:
    """Median of `seconds_in_turn`."""
    times = seconds_in_turn(variants, repeats=repeats)
    return {name: float(np.median(values)) for name, values in times.items()}


def paired_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Median over the rounds of one variant's time over another's in that round."""
    return float(np.median(np.array(times) / np.array(base)))


class Products(NamedTuple):
    """Matrix products whose rate is what a network's could be at best.

    Attributes:
        run: Computes them.
        flops: Floating-point operations of a run.
    """

    run: Callable[[], object]
    flops: float


def make_products(dtype: str, *, seconds: float = 0.1) -> Products:
    """Products of a network's size, float32 or (other dtypes) bfloat16 to float32.

    As many in a run as take about the given time.
    """
    rows, inner, cols = PRODUCT_SIZE
    operand = jnp.float32 if dtype == "float32" else jnp.bfloat16
    a, b = jnp.ones((rows, inner), operand), jnp.ones((inner, cols), operand)
    product = jax.jit(
        lambda a, b: jnp.dot(
            a, b, precision="highest", preferred_element_type=jnp.float32
        )
    )
    jax.block_until_ready(product(a, b))
    start = time.perf_counter()
    jax.block_until_ready(product(a, b))
    count = max(1, round(seconds / (time.perf_counter() - start)))

    def run() -> None:
        for _ in range(count):
            jax.block_until_ready(product(a, b))

    return Products(run, 2.0 * rows * inner * cols * count)


def queued_products(
    rows: int, inner: int, cols: int, *, out: Any = jnp.bfloat16, count: int = 1
) -> Products:
    """Products of random bfloat16 matrices, of which the device always has the next."""
    keys = jax.random.split(jax.random.key(0))
    a = jax.random.normal(keys[0], (rows, inner), jnp.bfloat16)
    b = jax.random.normal(keys[1], (inner, cols), jnp.bfloat16)
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=out))
    product = product.lower(a, b).compile()

    def run() -> object:
        return [product(a, b) for _ in range(count)][-1]

    return Products(run, 2.0 * rows * inner * cols * count)


class Compiled(NamedTuple):
    """A compiled function with what it takes.

    Attributes:
        call: Calls it.
        seconds: Time to trace and compile it.
        memory: What it holds, by the compiler's account.
    """

    call: Callable[..., Any]
    seconds: float
    memory: Memory


def compile_for(function: Callable, *args: Any, donate: tuple = ()) -> Compiled:
    """Compile a function for arguments of these shapes."""
    start = time.perf_counter()
    call = jax.jit(function, donate_argnums=donate).lower(*args).compile()
    seconds = time.perf_counter() - start
    return Compiled(call, seconds, memory_of(call))


def total_macs(experiment: Experiment) -> int:
    """Multiply-accumulates of one image, attention's included."""
    costs = count_costs(experiment.backbone)
    return costs.macs + costs.attention_macs


def compile_step(experiment: Experiment, batch: int) -> tuple[Compiled, list]:
    """The training step and its arguments."""
    optimizer = create_optimizer(num_steps=1000)
    state = create_state(experiment, optimizer, jax.random.key(1))
    step = make_train_step(experiment, optimizer, jax.random.key(0), 0.9999)
    image = jnp.zeros((batch, *experiment.backbone.image_shape), jnp.uint8)
    arguments = [state, image, jnp.zeros(batch, jnp.int32)]
    return compile_for(step, *arguments, donate=(0,)), arguments


@contextlib.contextmanager
def aggregation_off() -> Iterator[None]:
    """Networks made and traced in here scale features instead of aggregating them.

    What is left is the time of everything else, the matrix products above all. Each
    node has a factor: of features that are handed on unchanged both kernels of a hop
    have one gradient, and the compiler leaves out a product that aggregation needs.
    """

    def scale(graph: Graph | GridGraph, normalization: str) -> aggregation.Aggregate:
        factors = np.linspace(0.5, 1.0, graph.num_padded_nodes, dtype=np.float32)

        def scale_rows(h: jax.Array) -> jax.Array:
            of_rows = np.tile(factors, len(h) // len(factors))[:, None]
            return (h.astype(jnp.float32) * of_rows).astype(h.dtype)

        return scale_rows

    def scale_by_relation(
        name: str, relations: RelationalGraph, grid: GridGraph | None = None
    ) -> relations_of.RelationalSum:
        nodes = scale(relations.graph, "")

        def scale_rows(h: jax.Array, w: jax.Array) -> jax.Array:
            mean = jnp.mean(w.reshape(-1, *w.shape[-2:]), axis=1, keepdims=True)
            # [batch, node, width] to [batch * node, width] and back
            grid = h.reshape(-1, relations.graph.num_padded_nodes, h.shape[-1])
            rows = (grid * mean).astype(h.dtype).reshape(-1, h.shape[-1])
            return nodes(rows).reshape(h.shape)

        return scale_rows

    with (
        mock.patch.dict(aggregation.AGGREGATIONS, stencil=scale),
        mock.patch.object(
            relational_blocks, "create_relational_sum", scale_by_relation
        ),
    ):
        yield


@contextlib.contextmanager
def attention_left_out() -> Iterator[None]:
    """Attention traced in here is a sum that needs its inputs and nothing else."""

    def add(q: jax.Array, k: jax.Array, v: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return q + k + v

    with mock.patch.object(attention, "dot_product_attention", add):
        yield


def left_out_flops(attention_macs: float) -> float:
    """FLOPs of a training step's attention, by the multiply-accumulates of its forward.

    Two products forward, and with the weights computed again five backward.
    """
    return 2.0 * attention_macs * 3.5


def words(text: str) -> list[str]:
    """A flag's values, separated by commas."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """A flag's numbers, separated by commas."""
    return [int(word) for word in text.split(",")]


def write_json(path: str, rows: list[dict[str, Any]], options: Any) -> None:
    """The table with its machine and options, where a path is given."""
    if path:
        record = {"machine": describe_machine(), "options": vars(options), "rows": rows}
        Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def describe_machine() -> str:
    """Processor or accelerator, cores, load, versions."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = {
                line.split(":")[1].strip() for line in file if "model name" in line
            }
        cores = len(os.sched_getaffinity(0))
        load = os.getloadavg()[0]
        name = f"{', '.join(sorted(names))}, {cores} cores, load {load:.1f}"
    return f"{name}; jax {jax.__version__}, Python {platform.python_version()}"
