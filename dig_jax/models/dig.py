"""DiG-parallel and DiG-mix (From Patches to Graphs, Sec. 3 and App. A).

Node features inside the network are [batch * node, width]: patches of each scale, then
the hubs, then padding, for one image after the other. docs/paper.md lists how each
detail that the paper leaves open is read.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.graphs import GridGraph, image_to_patches, patches_to_image
from dig_jax.models.aggregation import (
    Aggregate,
    create_aggregate,
    pool_sum,
    repeat_patches,
)
from dig_jax.models.layers import (
    MLP,
    DType,
    LayerNorm,
    Linear,
    activation_dtype,
    gelu,
    matmul,
    sinusoidal_embedding,
    truncated_normal,
    uniform_fan_in,
)
from dig_jax.models.skeleton import LongSkipStack

Rows = Float[Array, "rows width"]


class GraphSAGE(nn.Module):
    """GraphSAGE with mean aggregation, no bias: W_self h_v + W_neigh mean_u h_u.

    The kernel is [W_self | W_neigh], [width, 2 width]: one product, aggregated after it
    (mean_u (W h_u) = W mean_u h_u).
    """

    aggregate: Aggregate
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        width = h.shape[-1]
        kernel = self.param("kernel", uniform_fan_in, (width, 2 * width))
        both = matmul(h, kernel, self.dtype)
        return both[:, :width] + self.aggregate(both[:, width:])


class Hops(nn.Module):
    """K hops of message passing, each with its own weights and a GELU (Eq. 1, 4)."""

    num_hops: int
    aggregate: Aggregate
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        for k in range(self.num_hops):
            h = gelu(GraphSAGE(self.aggregate, self.dtype, name=f"hop_{k}")(h))
        return h


class ParallelBlock(nn.Module):
    """One DiG-parallel block (Eq. 2-6) on the finest graph."""

    graph: GridGraph
    hops: int
    mlp_ratio: float
    aggregation: str
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        finest = LayerNorm(name="norm")(h)
        num_scales = len(self.graph.scales)
        if num_scales == 1:
            fused = self._hops(0)(finest)
        else:
            # Eq. 5: W [H_1; up(H_2); ...] as a sum of products, each taken before the
            # copy to the finest scale, where it is cheapest.
            bias = self.param("fuse_bias", nn.initializers.zeros, (h.shape[-1],))
            fused = bias.astype(h.dtype)
            for i in range(num_scales):
                z = finest if i == 0 else pool(finest, self.graph, i)
                z = self._hops(i)(z)
                z = Linear(
                    h.shape[-1],
                    self.dtype,
                    use_bias=False,
                    name=f"fuse_{self.graph.patch_sizes[i]}",
                )(z)
                fused = fused + (z if i == 0 else unpool(z, self.graph, i))
        update = LayerNorm(name="mlp_norm")(fused)
        return h + MLP(self.mlp_ratio, self.dtype, name="mlp")(update)

    def _hops(self, index: int) -> Hops:
        aggregate = create_aggregate(self.aggregation, self.graph.at_scale(index))
        name = f"hops_{self.graph.patch_sizes[index]}"
        return Hops(self.hops, aggregate, self.dtype, name=name)


class MixBlock(nn.Module):
    """One DiG-mix block (Eq. 7-8) on the graph of all scales."""

    graph: GridGraph
    hops: int
    mlp_ratio: float
    aggregation: str
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        h = LayerNorm(name="norm")(h)
        aggregate = create_aggregate(self.aggregation, self.graph)
        h = h + Hops(self.hops, aggregate, self.dtype, name="hops")(h)
        update = LayerNorm(name="mlp_norm")(h)
        return h + MLP(self.mlp_ratio, self.dtype, name="mlp")(update)


class DiG(nn.Module):
    """The network around the blocks: image to nodes, blocks, nodes to prediction.

    Attributes:
        graph: Graph of the nodes: the finest scale alone is embedded and stacked for
            parallel blocks, every scale for mix blocks.
        block: ParallelBlock or MixBlock.
        num_labels: Rows of the label table; 0 for none, and then no context node.
    """

    graph: GridGraph
    block: type[ParallelBlock] | type[MixBlock]
    width: int
    depth: int
    hops: int
    mlp_ratio: float
    num_labels: int
    aggregation: str
    dtype: DType
    unroll: int
    remat: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> Array:
        batch = x.shape[0]
        nodes = self.graph if self.block is MixBlock else self.graph.at_scale(0)
        h = self._embed(x, t, label, nodes)
        h = h.astype(activation_dtype(self.dtype))
        h, features = LongSkipStack(
            block=partial(
                self.block,
                graph=self.graph,
                hops=self.hops,
                mlp_ratio=self.mlp_ratio,
                aggregation=self.aggregation,
                dtype=self.dtype,
            ),
            depth=self.depth,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
            name="blocks",
        )(h.reshape(-1, self.width), return_features)
        if features is not None:
            per_image = features.reshape(
                len(features), batch, nodes.num_padded_nodes, self.width
            )
            return per_image[:, :, : nodes.num_patches]
        finest = h.reshape(batch, -1, self.width)[:, nodes.scales[0].nodes]
        return self._to_image(finest, x.shape)

    def _embed(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        nodes: GridGraph,
    ) -> Float[Array, "batch node width"]:
        """Features of every node: patches and class linear, time sinusoidal."""
        parts = [
            Linear(self.width, self.dtype, name=f"patch_{size}")(
                image_to_patches(x, size)
            )
            for size in nodes.patch_sizes
        ]
        parts.append(sinusoidal_embedding(999.0 * t, self.width)[:, None])
        if self.num_labels:
            table = self.param(
                "label_embedding", truncated_normal, (self.num_labels, self.width)
            )
            parts.append(table[label][:, None])
        h = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)
        h = h + self.param("position", truncated_normal, (nodes.num_nodes, self.width))
        padding = nodes.num_padded_nodes - nodes.num_nodes
        return jnp.pad(h, ((0, 0), (0, padding), (0, 0)))

    def _to_image(
        self, h: Float[Array, "batch node width"], shape: tuple[int, ...]
    ) -> Float[Array, "batch row col rgb"]:
        """Norm, linear to the pixels of each patch, 3x3 convolution; float32 out."""
        patch_size, rgb = self.graph.patch_sizes[0], shape[-1]
        h = LayerNorm(name="norm")(h).reshape(-1, self.width)
        pixels = Linear(patch_size**2 * rgb, self.dtype, name="to_pixels")(h)
        pixels = pixels.reshape(shape[0], -1, patch_size**2 * rgb).astype(jnp.float32)
        image = patches_to_image(pixels, (shape[1], shape[2]), patch_size)
        return nn.Conv(
            rgb,
            (3, 3),
            padding=1,
            kernel_init=uniform_fan_in,
            precision="highest",
            name="smooth",
        )(image)


def pool(
    h: Float[Array, "fine_rows width"], graph: GridGraph, index: int
) -> Float[Array, "coarse_rows width"]:
    """Features of the finest graph to those of a coarser one; hubs are kept.

    The mean over the fine patches that a coarse patch covers: the mask C of Eq. 3 with
    its rows normalized.
    """
    fine, coarse = graph.at_scale(0), graph.at_scale(index)
    factor = graph.factor(0, index)
    per_image = h.reshape(-1, fine.num_padded_nodes, h.shape[-1])
    pooled = pool_sum(_as_grid(per_image, fine), factor) / factor**2
    return _to_rows(pooled.astype(h.dtype), per_image[:, fine.hubs], coarse)


def unpool(
    h: Float[Array, "coarse_rows width"], graph: GridGraph, index: int
) -> Float[Array, "fine_rows width"]:
    """Features of a coarser graph copied to the patches they cover: C^T h (Eq. 5)."""
    fine, coarse = graph.at_scale(0), graph.at_scale(index)
    per_image = h.reshape(-1, coarse.num_padded_nodes, h.shape[-1])
    copied = repeat_patches(_as_grid(per_image, coarse), graph.factor(0, index))
    return _to_rows(copied, per_image[:, coarse.hubs], fine)


def _as_grid(
    h: Float[Array, "batch node width"], graph: GridGraph
) -> Float[Array, "batch row col width"]:
    scale = graph.scales[0]
    return h[:, scale.nodes].reshape(len(h), scale.rows, scale.cols, -1)


def _to_rows(
    grid: Float[Array, "batch row col width"],
    hubs: Float[Array, "batch hub width"],
    graph: GridGraph,
) -> Rows:
    """Put patches, hubs and padding of a single-scale graph together again."""
    batch, _, _, width = grid.shape
    padding = graph.num_padded_nodes - graph.num_nodes
    parts = [grid.reshape(batch, -1, width), hubs]
    if padding:
        parts.append(jnp.zeros((batch, padding, width), grid.dtype))
    return jnp.concatenate(parts, axis=1).reshape(-1, width)
