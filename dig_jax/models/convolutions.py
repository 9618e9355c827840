"""Graph convolutions: the update of a node from its neighbours (Eq. 1, App. B).

The numbers are those of PyTorch Geometric's SAGEConv, GCNConv and GINConv with the same
weights, on any static graph:

    graph = Graph.from_graphs_tuple(tuple_)
    conv = create_convolution("gcn", graph)
    params = conv.init(key, h)  # h is [node, width], or [batch * node, width]

PyTorch Geometric's SAGEConv and GINConv know no weights of edges: here the mean and the
sum are weighted (the sum as in its DenseGINConv). Self-loops that occur twice add up.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.errors import InputError
from dig_jax.graphs import Graph, GridGraph, Normalization
from dig_jax.models.layers import MLP, uniform_fan_in
from dig_jax.ops.aggregation import Aggregate, create_aggregate
from dig_jax.ops.gelu import gelu
from dig_jax.ops.linear_call import linear_call
from dig_jax.ops.products import DType, matmul

Rows = Float[Array, "rows width"]
Conv: TypeAlias = Literal["sage", "gcn", "gin"]


class GraphSAGE(nn.Module):
    """GraphSAGE (arXiv:1706.02216), no bias: W_self h_v + W_neigh mean_u h_u.

    The kernel is [W_self | W_neigh], [width, 2 width]: on CPU and GPU one product.
    Aggregated is what comes out of it (mean_u (W h_u) = W mean_u h_u).

    Attributes:
        aggregate: The mean over the neighbours.
    """

    aggregate: Aggregate
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        width = h.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (width, 2 * width))
        if target_platform() == "cpu":
            own, neighbours = jnp.split(matmul(h, kernel, self.dtype), 2, axis=1)
            return own + self.aggregate(neighbours)
        if target_platform() == "gpu":
            both = matmul(h, kernel, self.dtype)
            return _add_neighbours(both, self.aggregate, self.dtype)
        # Two products: sum and GELU are fused with the one that comes last.
        of_self, of_neighbours = jnp.split(kernel, 2, axis=1)
        neighbours = self.aggregate(matmul(h, of_neighbours, self.dtype))
        return matmul(h, of_self, self.dtype) + neighbours


def _add_neighbours(
    both: Float[Array, "rows twice_width"], aggregate: Aggregate, dtype: DType
) -> Rows:
    """The first half of the columns, and the second aggregated.

    Its transpose puts the cotangent and what is aggregated of it side by side, for the
    gradients of the kernel and of the features to be one product each, and of the type
    that these multiply in.
    """
    factor = jnp.float32 if dtype == "float32" else jnp.bfloat16

    def add(both: Float[Array, "rows twice_width"]) -> Rows:
        own, neighbours = jnp.split(both, 2, axis=1)
        return own + aggregate(neighbours)

    def transpose(g: Rows) -> Float[Array, "rows twice_width"]:
        (of_neighbours,) = jax.linear_transpose(aggregate, g)(g)
        sides = jnp.concatenate([g, of_neighbours], axis=1).astype(factor)
        # Else XLA writes the second half by itself first, for one of the products.
        return jax.lax.optimization_barrier(sides).astype(both.dtype)

    return linear_call(add, transpose, (), both)


class GCN(nn.Module):
    """Graph convolution (arXiv:1609.02907, Eq. 2): D^-1/2 (A + I) D^-1/2 H W.

    Attributes:
        aggregate: The symmetric average of a node and its neighbours.
        use_bias: Add a bias; the blocks do not, as in GraphSAGE.
    """

    aggregate: Aggregate
    dtype: DType = "float32"
    use_bias: bool = False

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        width = h.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (width, width))
        h = self.aggregate(matmul(h, kernel, self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (width,))
            h = h + bias.astype(h.dtype)
        return h


class GIN(nn.Module):
    """Graph isomorphism network (arXiv:1810.00826, Eq. 4.1).

    MLP((1 + eps) h_v + sum_u h_u); the MLP is linear, GELU, linear, all of one width.

    Attributes:
        aggregate: The sum over the neighbours.
        train_eps: Learn eps, from 0 on; else it is 0.
    """

    aggregate: Aggregate
    dtype: DType = "float32"
    train_eps: bool = False

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        total = self.aggregate(h)
        if self.train_eps:
            eps = self.param("eps", nn.initializers.zeros, ())
            h = ((1 + eps) * h).astype(h.dtype)
        mlp = MLP(1.0, self.dtype, kernel_init=uniform_fan_in, name="mlp")
        return mlp(h + total)


class Convolution(NamedTuple):
    """A module that takes an aggregation, and the normalization that it is to have."""

    module: Callable[..., nn.Module]
    normalization: Normalization


CONVOLUTIONS: dict[str, Convolution] = {
    "sage": Convolution(GraphSAGE, "mean"),
    "gcn": Convolution(GCN, "symmetric"),
    "gin": Convolution(GIN, "sum"),
}


class Hops(nn.Module):
    """K hops of message passing, each with its own weights and a GELU (Eq. 1, 4)."""

    num_hops: int
    graph: GridGraph
    conv: str
    aggregation: str
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        module, normalization = CONVOLUTIONS[self.conv]
        aggregate = create_aggregate(self.aggregation, self.graph, normalization)
        if self.dtype != "float32" and target_platform() != "cpu":
            aggregate = _of_bfloat16(aggregate)
        for k in range(self.num_hops):
            h = gelu(module(aggregate, self.dtype, name=f"hop_{k}")(h))
        return h


def _of_bfloat16(aggregate: Aggregate) -> Aggregate:
    """An aggregation of features in bfloat16, which are half the bytes to move.

    Slower on CPU, which converts them back and forth.
    """

    def aggregate_rounded(h: Rows) -> Rows:
        return aggregate(h.astype(jnp.bfloat16)).astype(h.dtype)

    return aggregate_rounded


def create_convolution(
    name: str,
    graph: Graph | GridGraph,
    *,
    aggregation: str = "auto",
    **options: Any,
) -> nn.Module:
    """One layer of that name over any static graph, from rows to rows.

    Args:
        name: sage, gcn or gin.
        graph: A grid of patches, or any graph.
        aggregation: How neighbours are summed; no effect on the result.
        **options: Attributes of the module.

    Raises:
        InputError: Unknown name, or an aggregation that cannot have this graph.
    """
    if name not in CONVOLUTIONS:
        raise InputError(
            f"Unknown convolution {name!r}. Available: "
            f"{', '.join(sorted(CONVOLUTIONS))}."
        )
    module, normalization = CONVOLUTIONS[name]
    aggregate = create_aggregate(aggregation, graph, normalization)
    return module(aggregate=aggregate, **options)
