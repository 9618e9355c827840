"""DiG with relations: messages on a grid graph whose edges know their direction.

A block is

    h += g1 * W2 (gate * gelu(sum_r w_r A_r W1 Norm(h))),    h += g2 * MLP(Norm(h)),

with A_r the adjacency of one relation (from the north, ..., from itself, up and down
between scales, from and to a hub), w_r a weight for each channel, and norms, shifts and
gates g by adaLN-Zero from time and label (arXiv:2212.09748). GraphSAGE's mean, which
DiG's blocks take, is told no direction. Features inside the network are
[batch * node, width]: patches of each scale, then the hubs, then padding.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.graphs import GridGraph, image_to_patches, patches_to_image
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.dit import (
    embed_label,
    embed_time,
    grid_positions,
    xavier_uniform,
    zeros,
)
from dig_jax.models.layers import Linear, TimeInput, small_normal
from dig_jax.models.relational_blocks import Norm, RelationalBlock
from dig_jax.models.relational_options import RelationalOptions
from dig_jax.models.stack import Outputs, stack_blocks, stacked
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import takes_fields_of

Rows = Float[Array, "rows width"]
PerImage = Float[Array, "batch width"]
Condition = Float[Array, "batch told"]
Nodes = Float[Array, "batch node width"]


@takes_fields_of(RelationalOptions)
def create_dig_relational(options: RelationalOptions) -> Backbone:
    """A graph network whose messages have weights by relation and channel.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    names = options.hub_names
    graph = create_grid(options, options.patch_sizes, names)
    return as_backbone(
        DiGRelational(graph, options),
        options.image_shape,
        options.num_classes,
        graph=graph,
        null_label=options.null_label,
    )


def create_grid(
    options: RelationalOptions, patch_sizes: tuple[int, ...], hub_names: tuple[str, ...]
) -> GridGraph:
    """The graph of patches of those sizes and hubs of those names."""
    return GridGraph.create(
        options.image_shape[:2],
        patch_sizes,
        num_hubs=len(hub_names),
        neighbors=options.neighbors,
        across=True,
        node_multiple=options.node_multiple,
        coarse="grid",
        hub_names=hub_names,
    )


class DiGRelational(nn.Module):
    """The network around the blocks: image to nodes, blocks, nodes to prediction."""

    graph: GridGraph
    options: RelationalOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> Array:
        options, graph = self.options, self.graph
        time = embed_time(self, t)
        labelled = [embed_label(self, label)] if options.num_labels else []
        condition = sum(labelled, start=time)
        outside = x
        if options.outer_size:
            outer = create_grid(options, (options.outer_size,), ())
            blocks = partial(self._stack, outer, options.outer_depth, attends=False)
            outside = self._embed(x, outer, options.width_outside, "outer_patch")
            outside, _ = blocks(outside, condition, name="outer_in")
        h = self._nodes(x, outside, [time, *labelled])
        h, features = self._inner(h, condition, return_features)
        if return_features:
            # [block, batch * node, width] to [block, batch, node, width]
            shape = (-1, len(x), graph.num_padded_nodes, options.width)
            return stacked(features).reshape(shape)[:, :, : graph.num_patches]
        size = graph.patch_sizes[0]
        # [batch * node, width] to [batch, node, width], patches of the finest scale
        h = h.reshape(len(x), -1, options.width)[:, graph.scales[0].nodes]
        if options.outer_size:
            size = options.outer_size
            factor = graph.patch_sizes[0] // size
            spread = Linear(
                factor**2 * options.width_outside, options.dtype, name="spread"
            )
            finest = outer.scales[0]
            h = patches_to_image(spread(h), (finest.rows, finest.cols), factor)
            h = outside + h.reshape(outside.shape)
            h, _ = blocks(h, condition, name="outer_out")
            h = h.reshape(len(x), -1, options.width_outside)[:, finest.nodes]
        return self._head(h, condition, x.shape, size)

    # What embed_time and embed_label ask of a network.
    @property
    def width(self) -> int:
        """Of the features."""
        return self.options.width

    @property
    def dtype(self) -> DType:
        """Of the products."""
        return self.options.dtype

    @property
    def time(self) -> TimeInput:
        """What is embedded of t: 999 t."""
        return "continuous"

    @property
    def num_labels(self) -> int:
        """Rows of the label table."""
        return self.options.num_labels

    def _embed(self, x: Array, graph: GridGraph, width: int, name: str) -> Rows:
        """Rows of an image's patches on a graph of one scale, padding included."""
        scale = graph.scales[0]
        linear = partial(Linear, width, self.dtype, kernel_init=xavier_uniform)
        h = linear(name=name)(image_to_patches(x, scale.patch_size))
        h = h.astype(jnp.float32) + grid_positions(
            scale.rows, scale.cols, width
        ).astype("float32")
        padding = graph.num_padded_nodes - graph.num_nodes
        h = jnp.pad(h, ((0, 0), (0, padding), (0, 0)))
        return h.astype(activation_dtype(self.dtype)).reshape(-1, width)

    def _nodes(self, x: Array, outside: Array, told: list[PerImage]) -> Rows:
        """Rows of all nodes: patches of each scale, hubs, padding."""
        options, graph = self.options, self.graph
        linear = partial(
            Linear, options.width, options.dtype, kernel_init=xavier_uniform
        )
        parts = []
        for scale in graph.scales:
            if scale is graph.scales[0] and options.outer_size:
                factor = scale.patch_size // options.outer_size
                grid = outside.reshape(len(x), -1, options.width_outside)
                grid = grid[:, : scale.num_nodes * factor**2].reshape(
                    len(x), scale.rows * factor, scale.cols * factor, -1
                )
                patches = linear(name="gather")(image_to_patches(grid, factor))
            else:
                cut = image_to_patches(x, scale.patch_size)
                patches = linear(name=f"patch_{scale.patch_size}")(cut)
            position = grid_positions(scale.rows, scale.cols, options.width)
            parts.append(patches.astype(jnp.float32) + position.astype("float32"))
        if options.conditioning != "modulation":
            parts.append(jnp.stack(told, axis=1))
        if options.hubs:
            registers = self.param(
                "registers", small_normal, (options.hubs, options.width)
            )
            parts.append(jnp.broadcast_to(registers, (len(x), *registers.shape)))
        h = jnp.concatenate(parts, axis=1)
        padding = graph.num_padded_nodes - graph.num_nodes
        h = jnp.pad(h, ((0, 0), (0, padding), (0, 0)))
        return h.astype(activation_dtype(options.dtype)).reshape(-1, options.width)

    def _stack(
        self,
        graph: GridGraph,
        length: int,
        h: Rows,
        condition: Condition,
        *,
        name: str,
        attends: bool,
        skips: Outputs = None,
        returns: bool = False,
    ) -> tuple[Rows, Outputs]:
        (h, _), outputs = stack_blocks(
            self,
            RelationalBlock,
            (graph, self.options, attends, returns),
            name=name,
            length=length,
            unroll=self.options.unroll,
            remat=self.options.remat,
            reverse=skips is not None,
        )((h, condition), skips)
        return h, outputs

    def _inner(
        self, h: Rows, condition: Condition, returns: bool
    ) -> tuple[Rows, Outputs]:
        """The blocks, and if asked for their outputs, in order."""
        options = self.options
        attends = options.attention_size > 0
        stack = partial(self._stack, self.graph, attends=attends)
        if not options.long_skips:
            return stack(options.depth, h, condition, name="blocks", returns=returns)
        half = options.depth // 2
        h, skips = stack(half, h, condition, name="in_blocks", returns=True)
        h, middle = stack(1, h, condition, name="middle_block", returns=True)
        h, last = stack(
            half, h, condition, name="out_blocks", skips=skips, returns=returns
        )
        if not returns:
            return h, None
        parts = stacked(skips), stacked(middle), stacked(last)[::-1]
        return h, jnp.concatenate(parts)

    def _head(
        self, h: Nodes, condition: Condition, shape: tuple[int, ...], size: int
    ) -> Float[Array, "batch row col rgb"]:
        """A norm, modulated as the blocks' are, and a linear layer to the pixels."""
        _, rows, cols, rgb = shape
        width, norm = h.shape[-1], Norm(self.options.norm, name="norm")
        if self.options.modulated:
            modulation = Linear(
                2 * width, self.dtype, kernel_init=zeros, name="modulation"
            )(nn.silu(condition)).astype(jnp.float32)
            h = norm(h, *jnp.split(modulation, 2, axis=-1))
        else:
            h = norm(h)
        pixels = Linear(size**2 * rgb, self.dtype, kernel_init=zeros, name="to_pixels")(
            h
        )
        return patches_to_image(pixels.astype(jnp.float32), (rows, cols), size)
