"""The matrix products of one block alone, ours against torch's.

    pip install -e .[bench]
    python benchmarks/products.py [--batch=8] [--threads=2] [--repeats=9]
        [--out=FILE.json]

Each linear layer at CIFAR-10 sizes (width 512) forward, and its gradients in its input
and in its kernel, with operands and results in float32 or bfloat16, in billions of
floating-point operations a second: what is above a block's ratio in vs_torch.py is not
to be had from anything but faster products.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from common import (
    describe_machine,
    paired_ratio,
    print_table,
    seconds_in_turn,
    write_json,
)

from dig_jax.ops.products import DType, matmul

# Shapes of DiG-mix's kernels.
LAYERS = {
    "hop": (512, 1024),
    "mlp/expand": (512, 1536),
    "mlp/project": (1536, 512),
}
NODES = 321  # of {2, 4} on an image of 32x32


def ours(x: np.ndarray, kernel: np.ndarray, g: np.ndarray, dtype: DType) -> dict:
    """The three products, compiled."""
    arrays = [jnp.asarray(a, jnp.dtype(dtype)) for a in (x, kernel, g)]

    def forward(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return matmul(x, kernel, dtype)

    def of_input(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: matmul(x, kernel, dtype), x)[1](g)[0]

    def of_kernel(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: matmul(x, kernel, dtype), kernel)[1](g)[0]

    def bound(function: Callable) -> Callable[[], object]:
        compiled = jax.jit(function).lower(*arrays).compile()
        return lambda: compiled(*arrays)

    return {
        "forward": bound(forward),
        "of input": bound(of_input),
        "of kernel": bound(of_kernel),
    }


def theirs(x: np.ndarray, kernel: np.ndarray, g: np.ndarray, dtype: DType) -> dict:
    """The same of torch, whose kernels are transposed."""
    own = torch.float32 if dtype == "float32" else torch.bfloat16
    h, w, cotangent = (torch.tensor(a).to(own) for a in (x, kernel.T.copy(), g))
    return {
        "forward": lambda: torch.nn.functional.linear(h, w),
        "of input": lambda: cotangent @ w,
        "of kernel": lambda: cotangent.T @ h,
    }


def measure(layer: str, dtype: DType, options: argparse.Namespace) -> list[dict]:
    """A row for each product of a layer."""
    rows, (inner, cols) = options.batch * NODES, LAYERS[layer]
    rng = np.random.default_rng(0)
    x, kernel, g = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((rows, inner), (inner, cols), (rows, cols))
    )
    flops = 2.0 * rows * inner * cols
    mine, other = ours(x, kernel, g, dtype), theirs(x, kernel, g, dtype)
    table: list[dict[str, Any]] = []
    for name in mine:
        seconds = seconds_in_turn(
            {"ours": mine[name], "torch": other[name]},
            repeats=options.repeats,
            pause=0.02,
        )
        rates = {key: flops / np.median(times) for key, times in seconds.items()}
        table.append(
            {
                "layer": layer,
                "dtype": dtype,
                "product": name,
                "ours, GFLOP/s": round(rates["ours"] / 1e9),
                "torch, GFLOP/s": round(rates["torch"] / 1e9),
                "over torch": round(paired_ratio(seconds["torch"], seconds["ours"]), 2),
            }
        )
    return table


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtypes: tuple[DType, ...] = ("float32", "bfloat16")
    rows = [
        row
        for dtype in dtypes
        for layer in LAYERS
        for row in measure(layer, dtype, options)
    ]
    print(f"{describe_machine()}, torch {torch.__version__}; batch {options.batch}\n")
    print_table(rows)
    write_json(options.out, rows, options)


if __name__ == "__main__":
    main()
