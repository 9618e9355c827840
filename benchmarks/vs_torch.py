"""Our blocks against the same ones in torch and PyTorch Geometric.

    pip install -e .[bench]
    python benchmarks/vs_torch.py [--kinds=dig_parallel,dig_mix,uvit,dit] [--batch=8]
        [--blocks=2] [--threads=2] [--repeats=5] [--clock=wall|cpu] [--out=FILE.json]

A stack of blocks at CIFAR-10 sizes (width 512, K = 2, {2, 4}, one hub; DiG-parallel's
coarser graph a plain grid, since SAGEConv knows no weights of edges), forward, and
forward and backward in parameters and features; float32, and bfloat16 products (mixed,
and autocast). Both first have to give the same numbers in float32 with the same
weights. In one process, in turn. "over torch" is torch's time over ours.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from common import (
    describe_machine,
    paired_ratio,
    print_table,
    seconds_in_turn,
    words,
    write_json,
)
from torch_blocks import AdaptiveTransformer, Mix, Parallel, Transformer

from dig_jax.graphs import GridGraph
from dig_jax.models.dig import MixBlock, ParallelBlock
from dig_jax.models.dig_options import MixOptions, ParallelOptions
from dig_jax.models.dit import DiTBlock
from dig_jax.models.uvit import TransformerBlock
from dig_jax.ops.products import DType

IMAGE_SHAPE = 32, 32, 3
WIDTH, HOPS, HEADS = 512, 2, 8
# Some ten layers in float32 of each, with sums in different orders.
TOLERANCE = 2e-4


def conditions(batch: int) -> np.ndarray:
    """What DiT's blocks are told of each image."""
    return np.random.default_rng(0).normal(size=(batch, WIDTH)).astype(np.float32)


class ConditionedBlock(nn.Module):
    """DiT's block under `conditions`."""

    dtype: DType
    batch: int

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        block = DiTBlock(HEADS, 4.0, "xla", False, self.dtype, name="block")
        return block(h, jnp.asarray(conditions(self.batch)))[0]


def our_block(kind: str, dtype: DType, graph: GridGraph, batch: int) -> nn.Module:
    """A block as our networks have it."""
    if kind == "dit":
        return ConditionedBlock(dtype, batch)
    if kind == "uvit":
        return TransformerBlock(257, HEADS, 4.0, False, "xla", dtype)
    sizes: dict[str, Any] = dict(image_shape=IMAGE_SHAPE, hops=HOPS, dtype=dtype)
    if kind == "dig_mix":
        return MixBlock(graph, MixOptions(**sizes))
    return ParallelBlock(graph, ParallelOptions(**sizes))


def torch_block(kind: str, graph: GridGraph, batch: int) -> torch.nn.Module:
    """The same one in torch."""
    if kind == "dit":
        condition = torch.tensor(conditions(batch))
        return AdaptiveTransformer(WIDTH, HEADS, 4.0, condition)
    if kind == "uvit":
        return Transformer(WIDTH, HEADS, 4.0, batch)
    block = Mix if kind == "dig_mix" else Parallel
    return block(WIDTH, HOPS, 3.0, graph, batch)


def without_zeros(params: Any, key: jax.Array) -> Any:
    """Parameters, of which some start as zeros, somewhere else: all shall matter."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.02 * jax.random.normal(k, leaf.shape)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return tree.unflatten(moved)


def make_ours(
    block: nn.Module, params: list, h: jax.Array
) -> tuple[Callable, Callable]:
    """Forward, and gradients; compiled."""

    def forward(params: list, h: jax.Array) -> jax.Array:
        for p in params:
            h = block.apply({"params": p}, h)  # type: ignore[assignment]
        return h

    def loss(params: list, h: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(forward(params, h)))

    run = jax.jit(forward).lower(params, h).compile()
    gradient = jax.jit(jax.grad(loss, (0, 1))).lower(params, h).compile()
    return lambda: run(params, h), lambda: gradient(params, h)


def make_theirs(
    blocks: torch.nn.Module, h: torch.Tensor, autocast: bool
) -> tuple[Callable, Callable]:
    """Forward without gradients, and gradients."""
    cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)

    def forward() -> torch.Tensor:
        with torch.no_grad(), cast:
            return blocks(h)

    def gradient() -> torch.Tensor:
        x = h.clone().requires_grad_()
        blocks.zero_grad()
        with cast:
            out = blocks(x)
        out.float().square().mean().backward()
        assert x.grad is not None
        return x.grad

    return forward, gradient


def check_same(ours: tuple[Callable, Callable], theirs: tuple[Callable, Callable]):
    """Raise where results or gradients in the features differ by more than rounding."""
    pairs = (ours[0](), theirs[0]()), (ours[1]()[1], theirs[1]())
    for mine, other in pairs:
        a, b = np.asarray(mine, np.float64), other.numpy().astype(np.float64)
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error < TOLERANCE:
            raise SystemExit(f"Ours and torch's differ by {error:.2g}.")


def measure(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each dtype and pass."""
    batch = options.batch
    graph = GridGraph.create(
        IMAGE_SHAPE[:2], (2, 4), num_hubs=1, across=kind == "dig_mix", coarse="grid"
    )
    nodes = graph.num_nodes if kind == "dig_mix" else graph.at_scale(0).num_nodes
    h = jax.random.normal(jax.random.key(0), (batch * nodes, WIDTH))
    block = our_block(kind, "float32", graph, batch)
    keys = jax.random.split(jax.random.key(1), options.blocks)
    params = [without_zeros(block.init(key, h)["params"], key) for key in keys]
    theirs = torch.nn.Sequential(
        *(torch_block(kind, graph, batch) for _ in range(options.blocks))
    )
    for ours, other in zip(params, theirs, strict=True):
        other.load(jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), ours))
    h_torch = torch.tensor(np.array(h))
    rows = []
    dtypes: tuple[DType, ...] = ("float32", "mixed")
    for dtype in dtypes:
        mine = make_ours(our_block(kind, dtype, graph, batch), params, h)
        other = make_theirs(theirs, h_torch, autocast=dtype == "mixed")
        if dtype == "float32":
            check_same(mine, other)
        for index, work in enumerate(("forward", "training")):
            times = seconds_in_turn(
                {"ours": mine[index], "torch": other[index]},
                repeats=options.repeats,
                clock=options.clock,
                pause=0.05,
            )
            rows.append(
                {
                    "kind": kind,
                    "dtype": dtype,
                    "work": work,
                    "ours, ms": round(np.median(times["ours"]) * 1e3),
                    "torch, ms": round(np.median(times["torch"]) * 1e3),
                    "over torch": round(paired_ratio(times["torch"], times["ours"]), 2),
                }
            )
    return rows


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["dig_parallel", "dig_mix", "uvit", "dit"]
    parser.add_argument("--kinds", default=kinds, type=words)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for kind in options.kinds for row in measure(kind, options)]
    print(f"{describe_machine()}, torch {torch.__version__}; batch {options.batch}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
