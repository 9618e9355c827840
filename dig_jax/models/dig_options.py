"""What the DiG backbones take: shared options, and each one's own."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.models.convolutions import Conv
from dig_jax.models.skeleton import even_depth
from dig_jax.ops.aggregation import Aggregation
from dig_jax.ops.products import DType
from dig_jax.options.keys import Rounding

Conditioning: TypeAlias = Literal["node", "add", "concat"]


@dataclass(frozen=True, kw_only=True)
class DiGOptions:
    """What both backbones take.

    Attributes:
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
            patch (add: H + v_t + v_c), or concatenated to them and taken back to the
            width (concat: [H, v_t, v_c] W + b), once before the first block (Sec. 3.3).
        hubs: Whether time and label are nodes of the graph, joined to every patch; None
            for exactly with conditioning="node".
        position: A learned row for each node (1d), or one for each row and one for each
            column of patches, added up (2d).
        neighbors: 4 (patches that share a side) or 8 (or a corner).
        aggregation: How neighbours are summed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        node_multiple: Nodes are padded to a multiple of this; no effect on the result.

    Raises:
        InputError: An odd depth.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 512
    depth: PositiveInt = 12
    patch_sizes: tuple[PositiveInt, ...] = (2, 4)
    hops: PositiveInt = 2
    conv: Conv = "sage"
    mlp_ratio: PositiveFloat = 3.0
    conditioning: Conditioning = "node"
    hubs: bool | None = None
    position: Literal["1d", "2d"] = "1d"
    neighbors: Literal[4, 8] = 4
    aggregation: Rounding[Aggregation] = "auto"
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False
    node_multiple: Rounding[PositiveInt] = 1

    def __post_init__(self) -> None:
        even_depth(self.depth)

    @property
    def num_labels(self) -> int:
        """Rows of the label table; 0 for none, and then no context."""
        return self.num_classes + self.null_label

    @property
    def num_hubs(self) -> int:
        """Time, and context where there are classes; or none.

        Raises:
            InputError: Nothing would tell the network the time.
        """
        hubs = self.conditioning == "node" if self.hubs is None else self.hubs
        if not hubs and self.conditioning == "node":
            raise InputError(
                "conditioning='node' needs hubs (true, or none for the default), got "
                "hubs=False: the network would not know the time. Without hubs, use "
                "conditioning='add' or 'concat'."
            )
        if not hubs:
            return 0
        return 2 if self.num_classes else 1


@dataclass(frozen=True, kw_only=True)
class ParallelOptions(DiGOptions):
    """DiG-parallel's options.

    Attributes:
        coarse: Edges among coarser patches: C A C^T (product), or of weight 1 (grid).
        fusion: How scales are joined: concatenated and taken back to the width by a
            linear layer (concat, Eq. 5), or summed (sum, Sec. 4.2).
    """

    coarse: Literal["product", "grid"] = "product"
    fusion: Literal["concat", "sum"] = "concat"


@dataclass(frozen=True, kw_only=True)
class MixOptions(DiGOptions):
    """DiG-mix's options.

    Attributes:
        across: Join each patch to the coarser ones that cover it; without, the scales
            meet in the hubs alone.
    """

    across: bool = True
