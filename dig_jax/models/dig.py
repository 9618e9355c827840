"""DiG-parallel and DiG-mix (From Patches to Graphs, Sec. 3 and App. A).

Node features inside the network are [batch * node, width]: patches of each scale, then
the hubs, then padding, for one image after the other. docs/paper.md lists how each
detail that the paper leaves open is read.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph, image_to_patches
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.convolutions import Hops
from dig_jax.models.dig_options import DiGOptions, MixOptions, ParallelOptions
from dig_jax.models.layers import (
    MLP,
    LayerNorm,
    Linear,
    sinusoidal_embedding,
    small_normal,
)
from dig_jax.models.skeleton import (
    LongSkipStack,
    MakeBlock,
    predict_image,
)
from dig_jax.ops.look_up import look_up
from dig_jax.ops.pooling import pool, unpool
from dig_jax.ops.products import activation_dtype
from dig_jax.options.keys import takes_fields_of

Rows = Float[Array, "rows width"]


@takes_fields_of(ParallelOptions)
def create_dig_parallel(options: ParallelOptions) -> Backbone:
    """DiG-parallel: a GNN of its own for each scale, fused in each block (Sec. 3.1).

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    graph = _create_graph(options, across=False, coarse=options.coarse)
    return _create(options, graph, graph.at_scale(0), ParallelBlock)


@takes_fields_of(MixOptions)
def create_dig_mix(options: MixOptions) -> Backbone:
    """DiG-mix: one network on one graph of all scales (Sec. 3.2).

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    graph = _create_graph(options, across=options.across)
    if len(options.patch_sizes) > 1 and not options.across and not graph.num_hubs:
        raise InputError(
            "dig_mix needs edges between its scales (across=True) or hubs (hubs=True), "
            "got neither: the coarser patches would not reach the prediction."
        )
    return _create(options, graph, graph, MixBlock)


def _create_graph(options: DiGOptions, **kind: Any) -> GridGraph:
    return GridGraph.create(
        options.image_shape[:2],
        options.patch_sizes,
        num_hubs=options.num_hubs,
        neighbors=options.neighbors,
        node_multiple=options.node_multiple,
        **kind,
    )


def _create(
    options: DiGOptions, graph: GridGraph, embedded: GridGraph, block: MakeBlock
) -> Backbone:
    """The network of these blocks on a graph, of which some nodes are embedded."""
    return as_backbone(
        DiG(embedded, partial(block, graph=graph, options=options), options),
        options.image_shape,
        options.num_classes,
        graph=graph,
        null_label=options.null_label,
    )


class ParallelBlock(nn.Module):
    """One DiG-parallel block (Eq. 2-6) on the finest graph."""

    graph: GridGraph
    options: ParallelOptions

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        finest = LayerNorm(name="norm")(h)
        fused = self._scale(finest, 0)
        if self._fuses:
            bias = self.param("fuse_bias", nn.initializers.zeros, (h.shape[-1],))
            fused = fused + bias.astype(h.dtype)
        for i in range(1, len(self.graph.scales)):
            pooled = pool(finest, self.graph, i, self.options.dtype)
            coarse = self._scale(pooled, i)
            fused = fused + unpool(coarse, self.graph, i, self.options.dtype)
        return h + normed_mlp(fused, self.options)

    @property
    def _fuses(self) -> bool:
        return self.options.fusion == "concat" and len(self.graph.scales) > 1

    def _scale(self, h: Rows, index: int) -> Rows:
        """The hops at one scale, and its part of Eq. 5.

        W [H_1; up(H_2); ...] is a sum of products, each taken before the copy to the
        finest scale, where it is cheapest.
        """
        size, dtype = self.graph.patch_sizes[index], self.options.dtype
        h = create_hops(self.graph.at_scale(index), self.options, f"hops_{size}")(h)
        if not self._fuses:
            return h
        return Linear(h.shape[-1], dtype, use_bias=False, name=f"fuse_{size}")(h)


class MixBlock(nn.Module):
    """One DiG-mix block (Eq. 7-8) on the graph of all scales."""

    graph: GridGraph
    options: MixOptions

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        h = LayerNorm(name="norm")(h)
        h = h + create_hops(self.graph, self.options, "hops")(h)
        return h + normed_mlp(h, self.options)


def create_hops(graph: GridGraph, options: DiGOptions, name: str) -> Hops:
    """The K hops of a block on a graph; called in the block's `__call__`."""
    return Hops(
        options.hops,
        graph,
        options.conv,
        options.aggregation,
        options.dtype,
        name=name,
    )


def normed_mlp(h: Rows, options: DiGOptions) -> Rows:
    """MLP(Norm(h)), layers of the block in whose `__call__` this is."""
    update = LayerNorm(name="mlp_norm")(h)
    return MLP(options.mlp_ratio, options.dtype, name="mlp")(update)


class DiG(nn.Module):
    """The network around the blocks: image to nodes, blocks, nodes to prediction.

    Attributes:
        graph: Graph of the nodes that are embedded: the finest scale alone for parallel
            blocks, every scale for mix blocks.
        block: Makes a block of `name`.
    """

    graph: GridGraph
    block: MakeBlock
    options: DiGOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> Array:
        batch, nodes = x.shape[0], self.graph
        h = self._embed(x, t, label).astype(activation_dtype(self.options.dtype))
        # [batch, node, width] to [batch * node, width]
        h, features = LongSkipStack(
            block=self.block,
            depth=self.options.depth,
            dtype=self.options.dtype,
            unroll=self.options.unroll,
            remat=self.options.remat,
            name="blocks",
        )(h.reshape(-1, self.options.width), return_features)
        if features is not None:
            # [block, batch * node, width] to [block, batch, node, width]
            per_image = features.reshape(
                len(features), batch, nodes.num_padded_nodes, self.options.width
            )
            return per_image[:, :, : nodes.num_patches]
        # [batch * node, width] to [batch, node, width], patches of one scale
        finest = h.reshape(batch, -1, self.options.width)[:, nodes.scales[0].nodes]
        return predict_image(
            finest, x.shape, self.graph.patch_sizes[0], self.options.dtype
        )

    def _embed(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
    ) -> Float[Array, "batch node width"]:
        """Features of every node in float32: patches, then hubs, then padding."""
        nodes = self.graph
        patches = [
            Linear(self.options.width, self.options.dtype, name=f"patch_{size}")(
                image_to_patches(x, size)
            )
            for size in nodes.patch_sizes
        ]
        conditions = {"time": sinusoidal_embedding(999.0 * t, self.options.width)}
        if self.options.num_labels:
            table = self._table("label_embedding", self.options.num_labels)
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
        if self.options.position == "1d":
            return self._table("position", nodes.num_nodes)
        parts = []
        for scale in nodes.scales:
            row = self._table(f"position_row_{scale.patch_size}", scale.rows)
            col = self._table(f"position_col_{scale.patch_size}", scale.cols)
            # [row, col, width] to [row * col, width]
            parts.append((row[:, None] + col[None]).reshape(-1, self.options.width))
        if nodes.num_hubs:
            parts.append(self._table("position_hubs", nodes.num_hubs))
        return jnp.concatenate(parts)

    def _table(self, name: str, length: int) -> Float[Array, "length width"]:
        return self.param(name, small_normal, (length, self.options.width))

    def _condition(
        self,
        h: Float[Array, "batch node width"],
        conditions: dict[str, Float[Array, "batch width"]],
    ) -> Float[Array, "batch node width"]:
        """Tell each patch node the time and the label."""
        if self.options.conditioning == "add":
            for v in conditions.values():
                h = h + v[:, None]
        if self.options.conditioning == "concat":
            # [H, v_t, v_c] W + b as a sum of products, two of them for whole images.
            linear = partial(Linear, self.options.width, self.options.dtype)
            h = linear(name="concat_h")(h).astype(jnp.float32)
            for name, v in conditions.items():
                v = linear(use_bias=False, name=f"concat_{name}")(v)
                h = h + v.astype(jnp.float32)[:, None]
        return h
