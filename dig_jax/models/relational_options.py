"""What `dig_relational` takes."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs.patches import check_patch_sizes
from dig_jax.ops.aggregation import Aggregation
from dig_jax.ops.products import DType
from dig_jax.options.keys import Rounding

Hubs: TypeAlias = Literal[0, 1, 4, 8]


@dataclass(frozen=True, kw_only=True)
class RelationalOptions:
    """The options of `dig_relational`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size d of the node features; a multiple of 4.
        depth: Number of blocks; even with long_skips, and then without the middle one.
        patch_sizes: Sides of the patches, ascending; the nodes of several scales are
            joined by edges up and down.
        neighbors: Directions that tell patches of a scale apart: 4 or 8, and self.
        relations: typed: a weight per channel for each relation; untyped: one for the
            node itself and one for the mean of all that it hears, for comparison.
        noise_weights: Let time and label scale each relation's weights,
            w_r (1 + s_r(t)), from s = 0 on; with conditioning by modulation.
        channel_gate: Multiply each channel of a message by the sigmoid of a linear
            layer of the patches' mean, as a hub that hears all would send.
        hubs: How many registers: learned nodes that are joined to every patch.
        conditioning: How nodes know time and label: by shifts, scales and gates of each
            norm (modulation, adaLN-Zero of arXiv:2212.09748), as hubs of the graph
            (hubs), or both.
        branches: 2: messages and MLP each added to the stream; 1: the MLP of the
            messages added.
        zero_gates: Whether what is added starts at 0; else at 1 times.
        attention_size: Side of the coarse patches, a multiple of the finest's, that
            attend to each other in every block: in graph words a complete graph over
            them, with weights by attention. 0 for none.
        attention_width: Width of its queries, keys and values over d.
        num_heads: Of that attention.
        outer_size: Side of finer patches around the blocks, which patches hear when
            they are made, and send to at the end (an hourglass); several sides,
            ascending, for one such level around the other; 0 for none.
        outer_width: Their width over d, to a multiple of 4; of several levels each
            one's over that of the next within.
        outer_depth: Blocks among them before, and as many after, on each level.
        long_skips: Join each block of the second half to its counterpart (U-ViT's).
        mlp_ratio: Hidden width of the MLPs over the width.
        mlp: gelu, or swiglu with two thirds of the hidden width (arXiv:2002.05202).
        norm: LayerNorm (layer) or RMSNorm (rms, arXiv:1910.07467).
        aggregation: How messages are summed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        node_multiple: Nodes are padded to a multiple of this; no effect on the result.

    Raises:
        InputError: Options that do not fit the image or each other.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 384
    depth: PositiveInt = 12
    patch_sizes: tuple[PositiveInt, ...] = (2,)
    neighbors: Literal[4, 8] = 8
    relations: Literal["typed", "untyped"] = "typed"
    noise_weights: bool = False
    channel_gate: bool = False
    hubs: Hubs = 0
    conditioning: Literal["modulation", "hubs", "both"] = "modulation"
    branches: Literal[1, 2] = 2
    zero_gates: bool = True
    attention_size: NonNegativeInt = 0
    attention_width: PositiveFloat = 0.25
    num_heads: PositiveInt = 4
    outer_size: NonNegativeInt | tuple[PositiveInt, ...] = 0
    outer_width: PositiveFloat = 0.5
    outer_depth: PositiveInt = 1
    long_skips: bool = False
    mlp_ratio: PositiveFloat = 4.0
    mlp: Literal["gelu", "swiglu"] = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    aggregation: Rounding[Aggregation] = "auto"
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False
    node_multiple: Rounding[PositiveInt] = 1

    def __post_init__(self) -> None:
        size, finest = self.image_shape[:2], self.patch_sizes[0]
        check_patch_sizes(size, self.patch_sizes)
        if self.width % 4:
            raise InputError(
                f"width must be a multiple of 4 (sines and cosines of rows and "
                f"columns), got {self.width}."
            )
        if self.long_skips and self.depth % 2:
            raise InputError(
                f"depth must be even with long_skips (half of the blocks lie on each "
                f"side of the middle one), got {self.depth}."
            )
        if self.attention_size:
            if self.attention_size < finest:
                raise InputError(
                    f"attention_size must be a multiple of the finest patches' side, "
                    f"{finest}, got {self.attention_size}."
                )
            check_patch_sizes(size, tuple(sorted({finest, self.attention_size})))
            if self.channels_of_attention % self.num_heads:
                raise InputError(
                    f"num_heads must divide the attention's width, round(width * "
                    f"attention_width) = {self.channels_of_attention}, got "
                    f"{self.num_heads}."
                )
        if self.outer_sizes:
            if list(self.outer_sizes) != sorted({*self.outer_sizes, finest})[:-1]:
                raise InputError(
                    f"outer_size must be ascending sides below that of the patches "
                    f"within, {finest}, got {self.outer_size}."
                )
            check_patch_sizes(size, (*self.outer_sizes, finest))
            if not self.modulated:
                raise InputError(
                    "outer_size needs conditioning='modulation' or 'both', got 'hubs': "
                    "the outer patches would not know the time."
                )
        if self.noise_weights and (not self.modulated or self.relations == "untyped"):
            raise InputError(
                "noise_weights needs relations='typed' and conditioning='modulation' "
                f"or 'both', got {self.relations!r} and {self.conditioning!r}."
            )

    @property
    def modulated(self) -> bool:
        """Whether norms are told time and label."""
        return self.conditioning != "hubs"

    @property
    def num_labels(self) -> int:
        """Rows of the label table; 0 for none."""
        return self.num_classes + self.null_label

    @property
    def hub_names(self) -> tuple[str, ...]:
        """What the hubs stand for."""
        told = ("time", "context") if self.num_classes else ("time",)
        registers = tuple(f"register_{i}" for i in range(self.hubs))
        return (*told, *registers) if self.conditioning != "modulation" else registers

    @property
    def channels_of_attention(self) -> int:
        """Width of its queries, keys and values."""
        return round(self.width * self.attention_width)

    @property
    def outer_sizes(self) -> tuple[int, ...]:
        """Sides of the patches of the levels around the blocks, ascending."""
        if isinstance(self.outer_size, int):
            return (self.outer_size,) if self.outer_size else ()
        return self.outer_size

    @property
    def outer_widths(self) -> tuple[int, ...]:
        """Of the features on those levels."""
        levels = range(len(self.outer_sizes), 0, -1)
        shares = (self.width * self.outer_width**level for level in levels)
        return tuple(max(4 * round(share / 4), 4) for share in shares)
