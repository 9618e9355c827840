"""Parts of a network compiled for a chip that is not there: minutes, not tens of them.

    python benchmarks/block.py [--topology=v5e:1x1] [--image_size=32] [--batch=0]
        [--width=512] [--parts=block,relational,dit,dico,uvit,mlp,products]
        [--aggregation=none,dense,stencil] [--attention=xla,free] [--dtype=mixed]
        [--node_multiple=1] [--kinds] [--out=FILE.json]

block: one DiG-parallel block {2, 4} with K = 2, forward and backward, with each
aggregation; "none" scales features. relational: one of dig_relational's, of the same
patches of 2, without registers. dit, dico: one of DiT's or DiCo's, of these patches.
uvit: one of U-ViT's blocks at patches of 2, with each attention; "free" leaves the
attention itself out and adds its products at the chip's peak: no kernel is faster.
mlp: DiG's MLP with the norm before it, forward and backward. products: the bare matrix
products of the finest graph's nodes, of bfloat16 operands. Batch 0: images of 16,384
patches together.

Cycles are the compiler's estimates, memory is counted in the optimized HLO
(`dig_jax.costs`); "share" is the products' FLOPs over the chip's peak in those
cycles. "per GMAC" are cycles over the forward multiply-accumulates that the network's
formulas have, in which sums over neighbours and pooling are none. Nothing runs. The
whole training step: roofline.py.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from common import (
    aggregation_off,
    attention_left_out,
    left_out_flops,
    numbers,
    print_table,
    words,
    write_json,
)
from jax.sharding import SingleDeviceSharding

from dig_jax.costs import (
    Costs,
    DoesNotFitError,
    Topology,
    compile_lowered,
    compiling_for,
    count_costs,
    create_topology,
)
from dig_jax.graphs import GridGraph
from dig_jax.models.dico import DiCoBlock
from dig_jax.models.dig import ParallelBlock
from dig_jax.models.dig_options import ParallelOptions
from dig_jax.models.dit import DiTBlock
from dig_jax.models.layers import MLP, LayerNorm
from dig_jax.models.relational_blocks import RelationalBlock
from dig_jax.models.relational_options import RelationalOptions
from dig_jax.models.uvit import TransformerBlock
from dig_jax.ops.products import activation_dtype

MLP_RATIO = 3.0
UVIT_MLP_RATIO = 4.0
PATCHES = 2**14


class Program(NamedTuple):
    """What is compiled.

    Attributes:
        macs: Forward multiply-accumulates of the formulas; 0 where nobody asks.
        free_flops: Of products that are left out, to be added at the chip's peak.
    """

    name: str
    function: Callable
    arguments: list
    macs: float = 0.0
    free_flops: float = 0.0


class Relational(nn.Module):
    """A block of dig_relational; what it is told of time and label is a parameter."""

    graph: GridGraph
    options: RelationalOptions

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        shape = (len(h) // self.graph.num_padded_nodes, h.shape[-1])
        condition = self.param("condition", nn.initializers.ones, shape)
        block = RelationalBlock(self.graph, self.options, attends=False, returns=False)
        return block((h, condition), None)[0][0]


class Modulated(nn.Module):
    """A block that an image's condition modulates; the condition is a parameter."""

    block: Callable[[], nn.Module]
    batch: int

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        shape = (self.batch, h.shape[-1])
        condition = self.param("condition", nn.initializers.ones, shape)
        return self.block()(h, condition)[0]


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


def dig_macs(graph: GridGraph, width: int) -> float:
    """Of a block and an image: two hops of two products, their fusion, the MLP."""
    fine, coarse = (scale.num_nodes + graph.num_hubs for scale in graph.scales)
    return width**2 * ((2 * 2 + 1 + 2 * MLP_RATIO) * fine + (2 * 2 + 1) * coarse)


def relational_macs(graph: GridGraph, options: RelationalOptions) -> float:
    """Of a block and an image: messages' two products, the MLP, the modulation."""
    per_node = 2 + 2 * options.mlp_ratio
    return options.width**2 * (per_node * graph.num_patches + 3 * options.branches)


def attention_macs(num_tokens: int, width: int) -> float:
    """Of an image: both products of the attention itself."""
    return 2.0 * num_tokens**2 * width


def uvit_macs(num_tokens: int, width: int) -> float:
    """Of a block and an image: four products of the width, the MLP, the attention."""
    linear = (4 + 2 * UVIT_MLP_RATIO) * width**2
    return num_tokens * linear + attention_macs(num_tokens, width)


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


def aggregations(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Each kind, and the name that a network is given: it is off until the next one."""
    for kind in options.aggregation:
        if kind == "none":
            with aggregation_off():
                yield kind, "stencil"
        else:
            yield kind, kind


def relational_programs(
    options: argparse.Namespace, image_size: int, batch: int
) -> Iterator[Program]:
    """A block of dig_relational with each aggregation."""
    graph = GridGraph.create(image_size, (2,), neighbors=8, num_hubs=0)
    shape = (batch * graph.num_padded_nodes, options.width)
    rows = jax.ShapeDtypeStruct(shape, activation_dtype(options.dtype))
    for kind, name in aggregations(options):
        keywords = RelationalOptions(
            image_shape=(image_size, image_size, 3),
            width=options.width,
            aggregation=name,
            dtype=options.dtype,
        )
        run = forward_and_backward(Relational(graph, keywords), rows)
        macs = batch * relational_macs(graph, keywords)
        yield Program(f"relational, {kind}", *run, macs)


def programs(options: argparse.Namespace, image_size: int) -> Iterator[Program]:
    """All that is compiled."""
    graph = GridGraph.create(
        image_size,
        (2, 4),
        num_hubs=1,
        across=False,
        node_multiple=options.node_multiple,
    )
    num_patches = graph.scales[0].num_nodes
    batch, width = options.batch or max(PATCHES // num_patches, 1), options.width
    num_rows = batch * graph.at_scale(0).num_padded_nodes
    dtype = activation_dtype(options.dtype)
    rows = jax.ShapeDtypeStruct((num_rows, width), dtype)
    if "block" in options.parts:
        for kind, name in aggregations(options):
            keywords = ParallelOptions(
                image_shape=(image_size, image_size, 3),
                mlp_ratio=MLP_RATIO,
                aggregation=name,
                dtype=options.dtype,
            )
            run = forward_and_backward(ParallelBlock(graph, keywords), rows)
            yield Program(f"block, {kind}", *run, batch * dig_macs(graph, width))
    if "relational" in options.parts:
        yield from relational_programs(options, image_size, batch)
    side, heads = graph.scales[0].rows, width // 64
    modulated = {
        "dit": partial(DiTBlock, heads, 4.0, "xla", False, options.dtype),
        "dico": partial(DiCoBlock, (side, side), 4.0, False, options.dtype),
    }
    patches = jax.ShapeDtypeStruct((batch * num_patches, width), dtype)
    for name, block in modulated.items():
        if name in options.parts:
            run = forward_and_backward(Modulated(block, batch), patches)
            yield Program(name, *run)
    if "uvit" in options.parts:
        num_tokens = num_patches + 1
        tokens = jax.ShapeDtypeStruct((batch * num_tokens, width), dtype)
        for kind in options.attention:
            transformer = TransformerBlock(
                num_tokens, width // 64, UVIT_MLP_RATIO, False, "xla", options.dtype
            )
            free = kind == "free"
            with attention_left_out() if free else contextlib.nullcontext():
                run = forward_and_backward(transformer, tokens)
                left_out = left_out_flops(batch * attention_macs(num_tokens, width))
                macs = batch * uvit_macs(num_tokens, width)
                yield Program(f"U-ViT, {kind}", *run, macs, left_out if free else 0.0)
    if "mlp" in options.parts:
        run = forward_and_backward(NormedMLP(options.dtype), rows)
        yield Program("norm and mlp", *run)
    if "products" in options.parts:
        yield from (Program(*found) for found in products(num_rows, width))


def quotient(a: float, b: float, digits: int) -> float | str:
    """a / b, or nothing where nothing is known of either."""
    return round(a / b, digits) if a and b else ""


def measure(
    options: argparse.Namespace, topology: Topology, image_size: int
) -> Iterator[dict[str, Any]]:
    """A row of the table for each program."""
    place, chip = SingleDeviceSharding(topology.devices[0]), topology.chip
    clock, floor = chip.clock or 1, Costs()
    for program in programs(options, image_size):
        arguments = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
            program.arguments,
        )
        row = {"image": image_size, "part": program.name}
        try:
            compiled = compile_lowered(jax.jit(program.function).lower(*arguments))
        except DoesNotFitError as error:
            yield row | {"error": str(error)}
            continue
        costs = count_costs(compiled)
        flops = costs.flops + program.free_flops
        cycles = costs.cycles + program.free_flops / chip.flops * clock
        if program.name.endswith(", none"):
            floor = costs
        aggregates = program.name.startswith(("block", "relational"))
        compared = floor if aggregates else Costs()
        kinds = sorted(costs.cycles_by_kind.items(), key=lambda item: -item[1])
        macs = program.macs / 1e9
        row |= {
            "Mcycles": round(cycles / 1e6, 3),
            "over none": quotient(cycles, compared.cycles, 3),
            "share": quotient(flops / chip.flops, cycles / clock, 3),
            "GB": round(costs.memory_bytes / 1e9, 3),
            "GB over none": quotient(costs.memory_bytes, compared.memory_bytes, 3),
            "GMAC": round(macs, 2) or "",
            "Mcycles per GMAC": quotient(cycles / 1e6, macs, 4),
        }
        if options.kinds:
            row["kinds"] = {k: round(v / 1e6, 2) for k, v in kinds}
        yield row


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:1x1", help="or h100:1: bytes alone")
    parser.add_argument("--image_size", default=[32], type=numbers)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--parts", default=["block", "mlp", "products"], type=words)
    parser.add_argument("--attention", default=["xla", "free"], type=words)
    kinds = ["none", "dense", "stencil"]
    parser.add_argument("--aggregation", default=kinds, type=words)
    parser.add_argument("--dtype", default="mixed")
    parser.add_argument("--node_multiple", type=int, default=1)
    parser.add_argument("--kinds", action="store_true", help="cycles by kind")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    topology = create_topology(options.topology)
    rows = []
    with compiling_for(topology.platform, topology.gpu):
        for size in options.image_size:
            for row in measure(options, topology, size):
                print(row, flush=True)
                rows.append(row)
                write_json(options.out, rows, options)
    print()
    print_table([row for row in rows if "error" not in row])


if __name__ == "__main__":
    main()
