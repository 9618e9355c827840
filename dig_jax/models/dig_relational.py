"""DiG with relations: messages on a grid graph whose edges know their direction.

A block is

    h += g1 * W2 (gate * gelu(sum_r w_r A_r W1 Norm(h))),    h += g2 * MLP(Norm(h)),

with A_r the adjacency of one relation (from the north, ..., from itself, up and down
between scales, from and to a hub), w_r a weight for each channel, and norms, shifts and
gates g by adaLN-Zero from time and label (arXiv:2212.09748). GraphSAGE's mean, which
DiG's blocks take, is told no direction. Features inside the network are
[batch * node, width]: patches of each scale, then the hubs, then padding.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.graphs import GridGraph, image_to_patches, patches_to_image
from dig_jax.graphs.grid import Scale
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.dit import (
    embed_label,
    embed_time,
    grid_positions,
    xavier_uniform,
    zeros,
)
from dig_jax.models.layers import Linear, TimeInput, by_image, small_normal
from dig_jax.models.relational_blocks import Norm, RelationalBlock
from dig_jax.models.relational_options import RelationalOptions
from dig_jax.models.stack import Outputs, stack_blocks, stacked
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import takes_fields_of

Image = Float[Array, "batch row col channel"]
FinerImage = Float[Array, "batch finer_row finer_col finer_channel"]
Rows = Float[Array, "rows width"]
PerImage = Float[Array, "batch width"]
Condition = Float[Array, "batch told"]
Nodes = Float[Array, "batch node width"]
PartOfNodes = Float[Array, "batch _ width"]


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


@dataclass(frozen=True)
class OuterLevel:
    """A level of finer, narrower patches around the blocks, or around another level.

    Attributes:
        graph: Its patches.
        width: Of their features.
        suffix: Of its parameters' names; of what joins it to the level within, too.
    """

    graph: GridGraph
    width: int
    suffix: str


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
        levels = self._levels()
        grid, name, skips = x, "outer_patch", []
        for level in levels:
            scale = level.graph.scales[0]
            h = self._rows([self._patches(grid, scale, level.width, name)], level.graph)
            h = self._outside(level, h, condition, "outer_in")
            grid = scale.as_grid(by_image(h, len(x)))
            name = f"gather{level.suffix}"
            skips.append(grid)
        h = self._nodes(x, grid, [time, *labelled])
        h, features = self._inner(h, condition, return_features)
        if return_features:
            # [block, batch * node, width] to [block, batch, node, width]
            shape = (-1, len(x), graph.num_padded_nodes, options.width)
            return stacked(features).reshape(shape)[:, :, : graph.num_patches]
        grid = graph.scales[0].as_grid(by_image(h, len(x)))
        for level, skip in zip(reversed(levels), reversed(skips), strict=True):
            h = self._rows([self._joined(level, grid, skip)], level.graph)
            h = self._outside(level, h, condition, "outer_out")
            grid = level.graph.scales[0].as_grid(by_image(h, len(x)))
        nodes = grid.reshape(len(x), -1, grid.shape[-1])
        return self._head(nodes, condition, x.shape, x.shape[1] // grid.shape[1])

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

    def _levels(self) -> list[OuterLevel]:
        """Those around the blocks, from the outermost on."""
        sizes, widths = self.options.outer_sizes, self.options.outer_widths
        around = range(len(sizes), 0, -1)
        return [
            OuterLevel(
                create_grid(self.options, (size,), ()),
                width,
                f"_{number}" if number > 1 else "",
            )
            for size, width, number in zip(sizes, widths, around, strict=True)
        ]

    def _patches(self, grid: Image, scale: Scale, width: int, name: str) -> Nodes:
        """Patches of a grid of pixels or of finer patches, told their places."""
        cut = image_to_patches(grid, grid.shape[1] // scale.rows)
        linear = Linear(width, self.dtype, kernel_init=xavier_uniform, name=name)
        position = grid_positions(scale.rows, scale.cols, width).astype("float32")
        return linear(cut).astype(jnp.float32) + position

    def _rows(self, nodes: list[PartOfNodes], graph: GridGraph) -> Rows:
        """Rows of all nodes of a graph, padding included."""
        h = jnp.concatenate(nodes, axis=1)
        padding = graph.num_padded_nodes - graph.num_nodes
        h = jnp.pad(h, ((0, 0), (0, padding), (0, 0)))
        return h.astype(activation_dtype(self.dtype)).reshape(-1, h.shape[-1])

    def _nodes(self, x: Image, outside: FinerImage, told: list[PerImage]) -> Rows:
        """Rows of all nodes: patches of each scale, hubs, padding.

        The finest patches are made of the outer levels' grid, where there is one.
        """
        options, graph = self.options, self.graph
        parts = [
            self._patches(x, scale, options.width, f"patch_{scale.patch_size}")
            if scale.start or not options.outer_sizes
            else self._patches(outside, scale, options.width, "gather")
            for scale in graph.scales
        ]
        if options.conditioning != "modulation":
            parts.append(jnp.stack(told, axis=1))
        if options.hubs:
            registers = self.param(
                "registers", small_normal, (options.hubs, options.width)
            )
            parts.append(jnp.broadcast_to(registers, (len(x), *registers.shape)))
        return self._rows(parts, graph)

    def _joined(self, level: OuterLevel, grid: Image, skip: FinerImage) -> Nodes:
        """What an outer level was, and what its patches are sent from within."""
        rows, cols = skip.shape[1:3]
        factor = rows // grid.shape[1]
        spread = Linear(
            factor**2 * level.width, self.dtype, name=f"spread{level.suffix}"
        )(grid)
        nodes = spread.reshape(len(grid), -1, spread.shape[-1])
        joined = skip + patches_to_image(nodes, (rows, cols), factor)
        return joined.reshape(len(grid), -1, level.width)

    def _outside(
        self, level: OuterLevel, h: Rows, condition: Condition, name: str
    ) -> Rows:
        """The blocks of an outer level, on one way."""
        length, name = self.options.outer_depth, name + level.suffix
        stack = partial(self._stack, level.graph, length, attends=False)
        return stack(h, condition, name=name)[0]

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
