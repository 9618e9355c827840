"""From options to the DiG backbones."""

from typing import Literal

import jax
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs import GridGraph
from dig_jax.interfaces import Backbone
from dig_jax.models.aggregation import Aggregation, choose_aggregation
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.dig import DiG, MixBlock, ParallelBlock
from dig_jax.models.layers import DType


def create_dig_parallel(
    *,
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    num_classes: NonNegativeInt = 0,
    null_label: bool = False,
    width: PositiveInt = 512,
    depth: PositiveInt = 12,
    patch_sizes: tuple[PositiveInt, ...] = (2, 4),
    hops: PositiveInt = 2,
    mlp_ratio: PositiveFloat = 3.0,
    neighbors: Literal[4, 8] = 4,
    aggregation: Aggregation = "auto",
    dtype: DType = "float32",
    unroll: NonNegativeInt = 0,
    remat: bool = False,
    node_multiple: PositiveInt = 1,
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
        mlp_ratio: Hidden width of the MLPs over the width.
        neighbors: 4 (patches that share a side) or 8 (or a corner).
        aggregation: How neighbours are summed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        node_multiple: Nodes are padded to a multiple of this; no effect on the result.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    graph = _create_graph(
        image_shape, patch_sizes, num_classes, neighbors, node_multiple, across=False
    )
    network = DiG(
        graph=graph,
        block=ParallelBlock,
        width=width,
        depth=_even(depth),
        hops=hops,
        mlp_ratio=mlp_ratio,
        num_labels=num_classes + null_label,
        aggregation=_resolve(aggregation, graph.at_scale(0)),
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
    mlp_ratio: PositiveFloat = 3.0,
    neighbors: Literal[4, 8] = 4,
    aggregation: Aggregation = "auto",
    dtype: DType = "float32",
    unroll: NonNegativeInt = 0,
    remat: bool = False,
    node_multiple: PositiveInt = 1,
) -> Backbone:
    """DiG-mix: one network on one graph of all scales (Sec. 3.2).

    The options are those of `create_dig_parallel`.
    """
    graph = _create_graph(
        image_shape, patch_sizes, num_classes, neighbors, node_multiple, across=True
    )
    network = DiG(
        graph=graph,
        block=MixBlock,
        width=width,
        depth=_even(depth),
        hops=hops,
        mlp_ratio=mlp_ratio,
        num_labels=num_classes + null_label,
        aggregation=_resolve(aggregation, graph),
        dtype=dtype,
        unroll=unroll,
        remat=remat,
    )
    return as_backbone(
        network, image_shape, num_classes, graph=graph, null_label=null_label
    )


def _create_graph(
    image_shape: tuple[int, int, int],
    patch_sizes: tuple[int, ...],
    num_classes: int,
    neighbors: int,
    node_multiple: int,
    *,
    across: bool,
) -> GridGraph:
    return GridGraph.create(
        (image_shape[0], image_shape[1]),
        patch_sizes,
        num_hubs=2 if num_classes else 1,
        neighbors=neighbors,
        across=across,
        node_multiple=node_multiple,
    )


def _resolve(aggregation: str, graph: GridGraph) -> str:
    """Choose once for a whole network what `auto` means."""
    if aggregation != "auto":
        return aggregation
    return choose_aggregation(jax.default_backend(), graph.num_nodes)


def _even(depth: int) -> int:
    if depth % 2 or depth < 2:
        raise InputError(
            f"depth must be even and at least 2 (half of the blocks lie on each side"
            f" of the middle one), got {depth}."
        )
    return depth
