"""From options to the DiG backbones."""

from functools import partial
from typing import Literal, TypeAlias

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph
from dig_jax.interfaces import Backbone
from dig_jax.keys import Rounding
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.convolutions import Conv
from dig_jax.models.dig import DiG, MixBlock, ParallelBlock
from dig_jax.models.skeleton import even_depth
from dig_jax.ops.aggregation import Aggregation
from dig_jax.ops.products import DType

Conditioning: TypeAlias = Literal["node", "add", "concat"]


def create_dig_parallel(
    *,
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    num_classes: NonNegativeInt = 0,
    null_label: bool = False,
    width: PositiveInt = 512,
    depth: PositiveInt = 12,
    patch_sizes: tuple[PositiveInt, ...] = (2, 4),
    hops: PositiveInt = 2,
    conv: Conv = "sage",
    mlp_ratio: PositiveFloat = 3.0,
    conditioning: Conditioning = "node",
    hubs: bool | None = None,
    position: Literal["1d", "2d"] = "1d",
    neighbors: Literal[4, 8] = 4,
    coarse: Literal["product", "grid"] = "product",
    fusion: Literal["concat", "sum"] = "concat",
    aggregation: Rounding[Aggregation] = "auto",
    dtype: DType = "float32",
    unroll: Rounding[NonNegativeInt] = 0,
    remat: Rounding[bool] = False,
    node_multiple: Rounding[PositiveInt] = 1,
) -> Backbone:
    """DiG-parallel: a GNN of its own for each scale, fused in each block (Sec. 3.1).

    Args:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size d of the node features.
        depth: Number of blocks besides the middle one; even.
        patch_sizes: Sides of the patches, ascending.
        hops: Message-passing hops K in each block.
        conv: GraphSAGE, GCN or GIN (Table 3).
        mlp_ratio: Hidden width of the MLPs over the width.
        conditioning: Time and label as hub nodes (node), added to the features of each
            patch (add), or concatenated to them and taken back to the width (concat),
            once before the first block (Sec. 3.3).
        hubs: Whether time and label are nodes of the graph, joined to every patch; None
            for exactly with conditioning="node".
        position: A learned row for each node (1d), or one for each row and one for each
            column of patches, added up (2d).
        neighbors: 4 (patches that share a side) or 8 (or a corner).
        coarse: Edges among coarser patches: C A C^T (product), or of weight 1 (grid).
        fusion: How scales are joined: concatenated (concat), or summed (sum, Sec. 4.2).
        aggregation: How neighbours are summed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        node_multiple: Nodes are padded to a multiple of this; no effect on the result.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    graph = GridGraph.create(
        image_shape[:2],
        patch_sizes,
        num_hubs=_num_hubs(conditioning, hubs, num_classes),
        neighbors=neighbors,
        across=False,
        node_multiple=node_multiple,
        coarse=coarse,
    )
    block = partial(
        ParallelBlock,
        graph=graph,
        hops=hops,
        conv=conv,
        fusion=fusion,
        mlp_ratio=mlp_ratio,
        aggregation=aggregation,
        dtype=dtype,
    )
    network = DiG(
        graph=graph.at_scale(0),
        block=block,
        width=width,
        depth=even_depth(depth),
        num_labels=num_classes + null_label,
        conditioning=conditioning,
        position=position,
        dtype=dtype,
        unroll=unroll,
        remat=remat,
    )
    return as_backbone(
        network, image_shape, num_classes, graph=graph, null_label=null_label
    )


def create_dig_mix(
    *,
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    num_classes: NonNegativeInt = 0,
    null_label: bool = False,
    width: PositiveInt = 512,
    depth: PositiveInt = 12,
    patch_sizes: tuple[PositiveInt, ...] = (2, 4),
    hops: PositiveInt = 2,
    conv: Conv = "sage",
    mlp_ratio: PositiveFloat = 3.0,
    conditioning: Conditioning = "node",
    hubs: bool | None = None,
    position: Literal["1d", "2d"] = "1d",
    neighbors: Literal[4, 8] = 4,
    across: bool = True,
    aggregation: Rounding[Aggregation] = "auto",
    dtype: DType = "float32",
    unroll: Rounding[NonNegativeInt] = 0,
    remat: Rounding[bool] = False,
    node_multiple: Rounding[PositiveInt] = 1,
) -> Backbone:
    """DiG-mix: one network on one graph of all scales (Sec. 3.2).

    The options are those of `create_dig_parallel`, and instead of `coarse` and `fusion`

    Args:
        across: Join each patch to the coarser ones that cover it; without, the scales
            meet in the hubs alone.
    """
    graph = GridGraph.create(
        image_shape[:2],
        patch_sizes,
        num_hubs=_num_hubs(conditioning, hubs, num_classes),
        neighbors=neighbors,
        across=across,
        node_multiple=node_multiple,
    )
    if len(patch_sizes) > 1 and not across and not graph.num_hubs:
        raise InputError(
            "dig_mix needs edges between its scales (across=True) or hubs (hubs=True), "
            "got neither: the coarser patches would not reach the prediction."
        )
    block = partial(
        MixBlock,
        graph=graph,
        hops=hops,
        conv=conv,
        mlp_ratio=mlp_ratio,
        aggregation=aggregation,
        dtype=dtype,
    )
    network = DiG(
        graph=graph,
        block=block,
        width=width,
        depth=even_depth(depth),
        num_labels=num_classes + null_label,
        conditioning=conditioning,
        position=position,
        dtype=dtype,
        unroll=unroll,
        remat=remat,
    )
    return as_backbone(
        network, image_shape, num_classes, graph=graph, null_label=null_label
    )


def _num_hubs(conditioning: str, hubs: bool | None, num_classes: int) -> int:
    """Time, and context where there are classes; or none."""
    if hubs is None:
        hubs = conditioning == "node"
    if not hubs and conditioning == "node":
        raise InputError(
            "conditioning='node' needs hubs (true, or none for the default), got "
            "hubs=False: the network would not know the time. Without hubs, use "
            "conditioning='add' or 'concat'."
        )
    if not hubs:
        return 0
    return 2 if num_classes else 1
