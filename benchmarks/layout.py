"""Node features as [batch * node, width] against [batch, node, width].

    python benchmarks/layout.py [--batch=8] [--repeats=15]

Two GraphSAGE hops and an MLP with residual, forward and backward, with the stencil
aggregation, at CIFAR-10 sizes (257 nodes, width 512). Between the two only the shape of
the arrays that the products and elementwise operations see differs.
"""

import argparse

import jax
import jax.numpy as jnp
from common import describe_machine, median_seconds

from dig_jax.graphs import GridGraph
from dig_jax.ops.aggregation import stencil_aggregate
from dig_jax.ops.gelu import gelu
from dig_jax.ops.products import DType, matmul


def make_block(dtype: DType, shape: tuple[int, ...], graph: GridGraph):
    """Gradient of a block for features of a shape, compiled; call it to run."""
    aggregate = stencil_aggregate(graph)
    width = shape[-1]

    def loss(weights, h):
        x = h
        for w in weights[:2]:
            both = matmul(h, w, dtype)
            neighbours = aggregate(both[..., width:].reshape(-1, width))
            h = gelu(both[..., :width] + neighbours.reshape(h.shape))
        h = x + matmul(gelu(matmul(h, weights[2], dtype)), weights[3], dtype)
        return jnp.mean(jnp.square(h))

    keys = jax.random.split(jax.random.key(0), 5)
    sizes = [(width, 2 * width)] * 2 + [(width, 3 * width), (3 * width, width)]
    weights = [
        jax.random.normal(key, size) / size[0] ** 0.5
        for key, size in zip(keys, sizes, strict=False)
    ]
    h = jax.random.normal(keys[4], shape)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(weights, h).compile()
    return lambda: compiled(weights, h)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    graph = GridGraph.create(32, (2,), num_hubs=1)
    print(f"{describe_machine()}; batch {options.batch}\n")
    print("| dtype | [batch * node, width], ms | [batch, node, width], ratio |")
    print("|---|---|---|")
    dtypes: tuple[DType, ...] = ("float32", "mixed")
    for dtype in dtypes:
        shapes = {
            "rows": (options.batch * graph.num_nodes, 512),
            "batched": (options.batch, graph.num_nodes, 512),
        }
        seconds = median_seconds(
            {name: make_block(dtype, shape, graph) for name, shape in shapes.items()},
            repeats=options.repeats,
        )
        ratio = seconds["batched"] / seconds["rows"]
        print(f"| {dtype} | {seconds['rows'] * 1e3:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
