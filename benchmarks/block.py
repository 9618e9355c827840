"""Parts of a network compiled for a TPU that is not there: minutes, not tens of them.

    python benchmarks/block.py [--topology=v5e:1x1] [--image_size=32] [--batch=64]
        [--width=512] [--parts=block,mlp,products] [--aggregation=none,dense,stencil]
        [--dtype=mixed] [--node_multiple=1] [--kinds] [--out=FILE.json]

block: one DiG-parallel block {2, 4} with K = 2, forward and backward, with each
aggregation; "none" hands features on. mlp: its MLP with the norm before it, forward and
backward. products: the bare matrix products of the finest graph's nodes, of bfloat16
operands. Cycles are the compiler's estimates, memory is counted in the optimized HLO
(`dig_jax.compiled`); "share" is the products' FLOPs over the chip's peak in those
cycles. Nothing runs. The whole training step: roofline.py.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from common import aggregation_off, numbers, print_table, words, write_json
from jax.sharding import SingleDeviceSharding

from dig_jax.compiled import Topology, compiling_for, count_costs, create_topology
from dig_jax.graphs import GridGraph
from dig_jax.models.dig import ParallelBlock
from dig_jax.models.layers import MLP, LayerNorm
from dig_jax.models.products import activation_dtype

MLP_RATIO = 3.0


class NormedMLP(nn.Module):
    """h + MLP(norm(h))."""

    dtype: str

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        return h + MLP(MLP_RATIO, self.dtype)(LayerNorm()(h))  # type: ignore


def forward_and_backward(
    module: nn.Module, rows: jax.ShapeDtypeStruct
) -> tuple[Callable, list]:
    """The output and all gradients of a module, and their arguments."""
    params = jax.eval_shape(module.init, jax.random.key(0), rows)

    def run(params: Any, h: jax.Array, cotangent: jax.Array) -> Any:
        out, vjp = jax.vjp(module.apply, params, h)
        return out, vjp(cotangent)

    return run, [params, rows, rows]


def products(num_rows: int, width: int) -> Iterator[tuple[str, Callable, list]]:
    """Name, function and arguments of the bare products of an MLP and a hop."""
    hidden = round(MLP_RATIO * width)

    def product(axis: int, dtype: Any) -> Callable:
        def run(a: jax.Array, b: jax.Array) -> jax.Array:
            axes = (((axis,), (0,)), ((), ()))
            return jax.lax.dot_general(a, b, axes, preferred_element_type=dtype)

        return run

    def shapes(*dims: tuple[int, int]) -> list:
        return [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in dims]

    for out, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        for k, n in ((width, hidden), (hidden, width), (width, width)):
            name = f"[{num_rows}, {k}] [{k}, {n}] to {out}"
            yield name, product(1, dtype), shapes((num_rows, k), (k, n))
    name = f"[{width}, {num_rows}] [{num_rows}, {hidden}] to float32"
    gradient = shapes((num_rows, width), (num_rows, hidden))
    yield name, product(0, jnp.float32), gradient


def programs(
    options: argparse.Namespace, image_size: int
) -> Iterator[tuple[str, Callable, list]]:
    """Name, function and arguments of all that is compiled."""
    graph = GridGraph.create(
        image_size,
        (2, 4),
        num_hubs=1,
        across=False,
        node_multiple=options.node_multiple,
    )
    num_rows = options.batch * graph.at_scale(0).num_padded_nodes
    dtype = activation_dtype(options.dtype)
    rows = jax.ShapeDtypeStruct((num_rows, options.width), dtype)
    if "block" in options.parts:
        for kind in options.aggregation:
            block = ParallelBlock(
                graph=graph,
                hops=2,
                conv="sage",
                fusion="concat",
                mlp_ratio=MLP_RATIO,
                aggregation="stencil" if kind == "none" else kind,
                dtype=options.dtype,
            )
            off = aggregation_off() if kind == "none" else contextlib.nullcontext()
            with off:  # it holds until the next one is asked for
                yield f"block, {kind}", *forward_and_backward(block, rows)
    if "mlp" in options.parts:
        module = NormedMLP(options.dtype)
        yield "norm and mlp", *forward_and_backward(module, rows)
    if "products" in options.parts:
        yield from products(num_rows, options.width)


def measure(
    options: argparse.Namespace, topology: Topology, image_size: int
) -> Iterator[dict[str, Any]]:
    """A row of the table for each program."""
    place, chip = SingleDeviceSharding(topology.devices[0]), topology.chip
    floor = None
    for name, function, arguments in programs(options, image_size):
        arguments = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), arguments
        )
        costs = count_costs(jax.jit(function).lower(*arguments).compile())
        if name == "block, none":
            floor = costs.cycles
        compared = floor if name.startswith("block") else None
        share = costs.flops / chip.flops / (costs.cycles / (chip.clock or 1))
        kinds = sorted(costs.cycles_by_kind.items(), key=lambda item: -item[1])
        yield {
            "image": image_size,
            "part": name,
            "Mcycles": round(costs.cycles / 1e6, 3),
            "over none": round(costs.cycles / compared, 3) if compared else "",
            "share": round(share, 3),
            "GB": round(costs.memory_bytes / 1e9, 3),
            **(
                {"kinds": {k: round(v / 1e6, 2) for k, v in kinds}}
                if options.kinds
                else {}
            ),
        }


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:1x1", help="a TPU's")
    parser.add_argument("--image_size", default=[32], type=numbers)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--parts", default=["block", "mlp", "products"], type=words)
    kinds = ["none", "dense", "stencil"]
    parser.add_argument("--aggregation", default=kinds, type=words)
    parser.add_argument("--dtype", default="mixed")
    parser.add_argument("--node_multiple", type=int, default=1)
    parser.add_argument("--kinds", action="store_true", help="cycles by kind")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    topology = create_topology(options.topology)
    rows = []
    with compiling_for(topology.platform):
        for size in options.image_size:
            for row in measure(options, topology, size):
                print(row, flush=True)
                rows.append(row)
                write_json(options.out, rows, options)
    print()
    print_table(rows)


if __name__ == "__main__":
    main()
