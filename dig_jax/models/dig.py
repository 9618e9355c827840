"""DiG-parallel and DiG-mix (From Patches to Graphs, Sec. 3 and App. A).

Node features inside the network are [batch * node, width]: patches of each scale, then
the hubs, then padding, for one image after the other. docs/paper.md lists how each
detail that the paper leaves open is read.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.graphs import GridGraph, image_to_patches
from dig_jax.models.convolutions import Hops
from dig_jax.models.layers import (
    MLP,
    LayerNorm,
    Linear,
    sinusoidal_embedding,
    truncated_normal,
)
from dig_jax.models.skeleton import LongSkipStack, MakeBlock, predict_image
from dig_jax.ops.look_up import look_up
from dig_jax.ops.pooling import pool, unpool
from dig_jax.ops.products import DType, activation_dtype

Rows = Float[Array, "rows width"]


class ParallelBlock(nn.Module):
    """One DiG-parallel block (Eq. 2-6) on the finest graph.

    Attributes:
        fusion: concat: the scales' features concatenated and taken back to the width
            by a linear layer (Eq. 5); sum: added up (Sec. 4.2).
    """

    graph: GridGraph
    hops: int
    conv: str
    fusion: str
    mlp_ratio: float
    aggregation: str
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        finest = LayerNorm(name="norm")(h)
        fused = self._scale(finest, 0)
        if self._fuses:
            bias = self.param("fuse_bias", nn.initializers.zeros, (h.shape[-1],))
            fused = fused + bias.astype(h.dtype)
        for i in range(1, len(self.graph.scales)):
            pooled = pool(finest, self.graph, i, self.dtype)
            coarse = self._scale(pooled, i)
            fused = fused + unpool(coarse, self.graph, i, self.dtype)
        update = LayerNorm(name="mlp_norm")(fused)
        return h + MLP(self.mlp_ratio, self.dtype, name="mlp")(update)

    @property
    def _fuses(self) -> bool:
        return self.fusion == "concat" and len(self.graph.scales) > 1

    def _scale(self, h: Rows, index: int) -> Rows:
        """The hops at one scale, and its part of Eq. 5.

        W [H_1; up(H_2); ...] is a sum of products, each taken before the copy to the
        finest scale, where it is cheapest.
        """
        size = self.graph.patch_sizes[index]
        graph = self.graph.at_scale(index)
        h = Hops(
            self.hops,
            graph,
            self.conv,
            self.aggregation,
            self.dtype,
            name=f"hops_{size}",
        )(h)
        if not self._fuses:
            return h
        fuse = Linear(h.shape[-1], self.dtype, use_bias=False, name=f"fuse_{size}")
        return fuse(h)


class MixBlock(nn.Module):
    """One DiG-mix block (Eq. 7-8) on the graph of all scales."""

    graph: GridGraph
    hops: int
    conv: str
    mlp_ratio: float
    aggregation: str
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        h = LayerNorm(name="norm")(h)
        h = h + Hops(
            self.hops, self.graph, self.conv, self.aggregation, self.dtype, name="hops"
        )(h)
        update = LayerNorm(name="mlp_norm")(h)
        return h + MLP(self.mlp_ratio, self.dtype, name="mlp")(update)


class DiG(nn.Module):
    """The network around the blocks: image to nodes, blocks, nodes to prediction.

    Attributes:
        graph: Graph of the nodes that are embedded: the finest scale alone for parallel
            blocks, every scale for mix blocks.
        block: Makes a block of `name`.
        num_labels: Rows of the label table; 0 for none, and then no context.
        conditioning: How the patches know time and label (Sec. 3.3): node (by the hubs
            alone), add (H + v_t + v_c) or concat ([H, v_t, v_c] W + b).
        position: 1d (a row for each node) or 2d (for each row and column of a scale).
    """

    graph: GridGraph
    block: MakeBlock
    width: int
    depth: int
    num_labels: int
    conditioning: str = "node"
    position: str = "1d"
    dtype: DType = "float32"
    unroll: int = 0
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> Array:
        batch, nodes = x.shape[0], self.graph
        h = self._embed(x, t, label).astype(activation_dtype(self.dtype))
        # [batch, node, width] to [batch * node, width]
        h, features = LongSkipStack(
            block=self.block,
            depth=self.depth,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
            name="blocks",
        )(h.reshape(-1, self.width), return_features)
        if features is not None:
            # [block, batch * node, width] to [block, batch, node, width]
            per_image = features.reshape(
                len(features), batch, nodes.num_padded_nodes, self.width
            )
            return per_image[:, :, : nodes.num_patches]
        # [batch * node, width] to [batch, node, width], patches of one scale
        finest = h.reshape(batch, -1, self.width)[:, nodes.scales[0].nodes]
        return predict_image(finest, x.shape, self.graph.patch_sizes[0], self.dtype)

    def _embed(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
    ) -> Float[Array, "batch node width"]:
        """Features of every node in float32: patches, then hubs, then padding."""
        nodes = self.graph
        patches = [
            Linear(self.width, self.dtype, name=f"patch_{size}")(
                image_to_patches(x, size)
            )
            for size in nodes.patch_sizes
        ]
        conditions = {"time": sinusoidal_embedding(999.0 * t, self.width)}
        if self.num_labels:
            table = self._table("label_embedding", self.num_labels)
            assert label is not None  # by `as_backbone`
            conditions["context"] = look_up(table, label)
        position = self._position()
        h = jnp.concatenate([patch.astype(jnp.float32) for patch in patches], axis=1)
        h = self._condition(h + position[: nodes.num_patches], conditions)
        if nodes.num_hubs:
            hubs = jnp.stack(list(conditions.values()), axis=1)
            h = jnp.concatenate([h, hubs + position[nodes.hubs]], axis=1)
        padding = nodes.num_padded_nodes - nodes.num_nodes
        return jnp.pad(h, ((0, 0), (0, padding), (0, 0)))

    def _position(self) -> Float[Array, "node width"]:
        """Learned position embeddings of patches and hubs."""
        nodes = self.graph
        if self.position == "1d":
            return self._table("position", nodes.num_nodes)
        parts = []
        for scale in nodes.scales:
            row = self._table(f"position_row_{scale.patch_size}", scale.rows)
            col = self._table(f"position_col_{scale.patch_size}", scale.cols)
            # [row, col, width] to [row * col, width]
            parts.append((row[:, None] + col[None]).reshape(-1, self.width))
        if nodes.num_hubs:
            parts.append(self._table("position_hubs", nodes.num_hubs))
        return jnp.concatenate(parts)

    def _table(self, name: str, length: int) -> Float[Array, "length width"]:
        return self.param(name, truncated_normal, (length, self.width))

    def _condition(
        self,
        h: Float[Array, "batch node width"],
        conditions: dict[str, Float[Array, "batch width"]],
    ) -> Float[Array, "batch node width"]:
        """Tell each patch node the time and the label."""
        if self.conditioning == "add":
            for v in conditions.values():
                h = h + v[:, None]
        if self.conditioning == "concat":
            # [H, v_t, v_c] W + b as a sum of products, two of them for whole images.
            linear = partial(Linear, self.width, self.dtype)
            h = linear(name="concat_h")(h).astype(jnp.float32)
            for name, v in conditions.items():
                v = linear(use_bias=False, name=f"concat_{name}")(v)
                h = h + v.astype(jnp.float32)[:, None]
        return h
