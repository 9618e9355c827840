"""Attention alone on this machine: ours, `jax.nn`'s, and what ours consists of.

    python benchmarks/attention.py [--batch=8] [--tokens=257] [--heads=8]
        [--channels=64] [--dtype=float32,mixed] [--repeats=12]

Best of the rounds, in milliseconds, forward and (for whole attentions) forward and
backward; the variants take turns. U-ViT at CIFAR-10's sizes is the default.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import print_table, seconds_in_turn, words, write_json

from dig_jax.models.attention import dot_product_attention
from dig_jax.ops.products import DType, batched_matmul


def wholes(dtype: DType) -> dict[str, Callable]:
    """Attention from [batch, token, head, channel] to the same."""
    operand = jnp.float32 if dtype == "float32" else jnp.bfloat16

    def jax_nn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (x.astype(operand) for x in (q, k, v))
        out = jax.nn.dot_product_attention(q, k, v, implementation="xla")
        return out.astype(jnp.float32)

    return {
        "ours": lambda q, k, v: dot_product_attention(q, k, v, dtype),
        "jax.nn": jax_nn,
    }


def parts(dtype: DType) -> dict[str, Callable]:
    """What ours does, of [matrix, token, channel] or [matrix, token, token]."""
    return {
        "both products": lambda q, k, v, w: (
            batched_matmul(q, k, dtype, transpose_b=True),
            batched_matmul(w, v, dtype),
        ),
        "exponentials": lambda q, k, v, w: jnp.exp(w),
        "maximum": lambda q, k, v, w: jnp.max(w, -1),
        "sum": lambda q, k, v, w: jnp.sum(w, -1),
    }


def measure(options: argparse.Namespace, dtype: DType) -> list[dict[str, Any]]:
    """A row for each variant."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    sizes = options.batch, options.tokens, options.heads, options.channels
    batch, tokens, heads, channels = sizes
    whole = [draw(*sizes) for _ in range(3)]
    split = [draw(batch * heads, tokens, channels) for _ in range(3)]
    split.append(draw(batch * heads, tokens, tokens))
    variants: dict[tuple[str, str], Callable[[], object]] = {}

    def add(name: str, work: str, function: Callable, arguments: list) -> None:
        compiled = jax.jit(function).lower(*arguments).compile()
        variants[name, work] = lambda: compiled(*arguments)

    for name, function in wholes(dtype).items():
        add(name, "forward", function, whole)

        def gradients(*arguments: jax.Array, function: Callable = function) -> Any:
            out, vjp = jax.vjp(function, *arguments)
            return out, vjp(out)

        add(name, "forward and backward", gradients, whole)
    for name, function in parts(dtype).items():
        add(name, "forward", function, split)
    times = seconds_in_turn(variants, repeats=options.repeats)
    return [
        {"dtype": dtype, "part": name, "work": work, "ms": round(1e3 * min(values), 1)}
        for (name, work), values in times.items()
    ]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=257)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--dtype", default=["float32", "mixed"], type=words)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rows = [row for dtype in options.dtype for row in measure(options, dtype)]
    write_json(options.out, rows, options)
    print_table(rows)


if __name__ == "__main__":
    main()
