"""DiCo: a U-shaped network of convolutions with adaLN-Zero (arXiv:2505.11196).

As in the authors' code (shallowdream204/DiCo), of which docs/dico.md has the counts.
The image is worked on at its full resolution, at half and at a quarter. Features inside
the blocks are [batch * pixel, width], for one image after the other.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.dit import (
    ModulatedNorm,
    embed_time_and_label,
    xavier_uniform,
    zeros,
)
from dig_jax.models.image_layers import Conv2D, DepthwiseConv2D, Features
from dig_jax.models.layers import MLP, Linear, TimeInput, by_image
from dig_jax.models.stack import Outputs, stack_blocks, stacked
from dig_jax.ops.gelu import gelu
from dig_jax.ops.keep_shape import keep_shape
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import Rounding, takes_fields_of

Rows = Float[Array, "rows width"]
PerImage = Float[Array, "batch width"]

STAGES = ("down_0", "down_1", "middle", "up_1", "up_0")
"""In the order of their use; the number says how often the sides were halved."""
SIZES: dict[str, dict[str, Any]] = {
    "S": dict(width=128, stage_depths=(5, 4, 4, 4, 4)),
    "B": dict(width=256, stage_depths=(5, 4, 4, 4, 4)),
    "L": dict(width=352, stage_depths=(9, 8, 9, 8, 9)),
    "XL": dict(width=416, stage_depths=(9, 9, 10, 9, 9)),
    "H": dict(width=416, stage_depths=(14, 12, 10, 12, 14), mlp_ratio=4.0),
}
"""The published sizes, as keywords of `create_dico`."""


@dataclass(frozen=True, kw_only=True)
class DiCoOptions:
    """The options of `create_dico`.

    Attributes:
        image_shape: (row, col, rgb) of the images; sides that are multiples of 4.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Channels d at full resolution on the way down, even; 2 d at half of it,
            4 d at a quarter, and 2 d at both resolutions on the way up.
        depth: Blocks of each of the five stages: down, down, middle, up, up.
        stage_depths: Each stage's own number of blocks; () for depth.
        mlp_ratio: Hidden width of the MLPs over the width.
        learned_variance: Predict as many channels of variance as the image has, too
            (`Backbone.with_variance`), as published. `objective.variance_loss` trains
            them.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of a stage's loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 128
    depth: PositiveInt = 4
    stage_depths: tuple[PositiveInt, ...] = ()
    mlp_ratio: PositiveFloat = 2.0
    learned_variance: bool = False
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False


@takes_fields_of(DiCoOptions)
def create_dico(options: DiCoOptions) -> Backbone:
    """DiCo: depthwise convolutions and channel attention, modulated by time and label.

    `features` are those of the blocks at full resolution on the way down.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    rows, cols, rgb = options.image_shape
    if rows % 4 or cols % 4:
        raise InputError(
            f"DiCo halves an image's sides twice: they must be multiples of 4, got "
            f"{rows}x{cols}."
        )
    if options.width % 2:
        raise InputError(
            f"The width of a DiCo must be even (half of it is kept where four pixels "
            f"become one), got {options.width}."
        )
    depths = options.stage_depths or (options.depth,) * len(STAGES)
    if len(depths) != len(STAGES):
        raise InputError(
            f"stage_depths must have one number for each of the {len(STAGES)} stages, "
            f"got {tuple(depths)}."
        )
    network = DiCo(
        channels=2 * rgb if options.learned_variance else rgb,
        width=options.width,
        depths=tuple(depths),
        mlp_ratio=options.mlp_ratio,
        num_labels=options.num_classes + options.null_label,
        dtype=options.dtype,
        unroll=options.unroll,
        remat=options.remat,
    )
    return as_backbone(
        network,
        options.image_shape,
        options.num_classes,
        null_label=options.null_label,
        learned_variance=options.learned_variance,
    )


class DiCoBlock(nn.Module):
    """h + gate * Conv(Norm(h)), then h + gate * MLP(Norm(h)), norms modulated.

    Conv is a linear layer (a 1x1 convolution), a 3x3 depthwise convolution, GELU,
    channel attention (each channel times the sigmoid of a linear layer of the pixels'
    mean), and a linear layer.

    Attributes:
        grid: Rows and columns of an image at this resolution.
    """

    grid: tuple[int, int]
    mlp_ratio: float
    return_features: bool
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, rows: Rows, condition: PerImage) -> tuple[Rows, Rows | None]:
        batch, width = condition.shape
        h = by_image(rows, batch)
        linear = partial(Linear, width, self.dtype, kernel_init=xavier_uniform)
        modulation = Linear(
            6 * width, self.dtype, kernel_init=zeros, name="modulation"
        )(nn.silu(condition))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = jnp.split(
            modulation, 6, axis=-1
        )
        y = keep_shape(linear(name="mix_in")(ModulatedNorm()(h, shift, scale)))
        y = DepthwiseConv2D(
            3, kernel_init=xavier_by_channel, bias_init=zeros, name="depthwise"
        )(y.reshape(batch, *self.grid, width))
        y = gelu(y).reshape(h.shape)
        mean = jnp.mean(y.astype(jnp.float32), axis=1)
        y = y * nn.sigmoid(linear(name="channel_attention")(mean))[:, None]
        h = h + gate[:, None] * linear(name="mix_out")(y)
        update = MLP(
            self.mlp_ratio, self.dtype, kernel_init=xavier_uniform, name="mlp"
        )(ModulatedNorm()(h, mlp_shift, mlp_scale))
        h = (h + mlp_gate[:, None] * update).reshape(rows.shape)
        return h, h if self.return_features else None


class Condition(nn.Module):
    """Time and label, embedded for the blocks of one width."""

    width: int
    num_labels: int
    dtype: DType
    time: TimeInput = "continuous"

    @nn.compact
    def __call__(
        self, t: Float[Array, "batch"], label: Int[Array, "batch"] | None
    ) -> PerImage:
        return embed_time_and_label(self, t, label)


class DiCo(nn.Module):
    """The way down, the middle, and the way up with a skip at each resolution.

    Attributes:
        channels: Of the output.
        depths: Blocks of each of `STAGES`.
        num_labels: Rows of each label table; 0 for none.
    """

    channels: int
    width: int
    depths: tuple[int, ...]
    mlp_ratio: float
    num_labels: int
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
        width, dtype = self.width, self.dtype
        convolve = partial(
            Conv2D, dtype=dtype, kernel_init=xavier_uniform, use_bias=False
        )
        fuse = partial(Linear, 2 * width, dtype, kernel_init=xavier_uniform)
        # One for each width: d, 2 d, 4 d.
        told = [
            Condition(2**i * width, self.num_labels, dtype, name=f"condition_{i}")(
                t, label
            )
            for i in range(3)
        ]
        h = Conv2D(
            width,
            dtype=dtype,
            kernel_init=xavier_of_matrix,
            bias_init=zeros,
            name="from_pixels",
        )(x)
        # [batch, row, col, d], then [batch, row / 2, col / 2, 2 d], ...
        finest, features = self._stage("down_0", h, told[0], return_features)
        if return_features:
            return stacked(features).reshape(-1, len(x), math.prod(x.shape[1:3]), width)
        h = four_to_one(convolve(width // 2, name="shrink_0")(finest))
        half, _ = self._stage("down_1", h, told[1])
        h = four_to_one(convolve(width, name="shrink_1")(half))
        h, _ = self._stage("middle", h, told[2])
        h = one_to_four(convolve(8 * width, name="grow_1")(h))
        h = fuse(name="fuse_1")(jnp.concatenate([h, half], axis=-1))
        h, _ = self._stage("up_1", h, told[1])
        h = one_to_four(convolve(4 * width, name="grow_0")(h))
        h = fuse(name="fuse_0")(jnp.concatenate([h, finest], axis=-1))
        h, _ = self._stage("up_0", h, told[1])

        modulation = Linear(4 * width, dtype, kernel_init=zeros, name="modulation")
        shift, scale = jnp.split(modulation(nn.silu(told[1])), 2, axis=-1)
        pixels = h.reshape(len(x), -1, 2 * width)  # and back
        normed = ModulatedNorm()(pixels, shift, scale)
        return Conv2D(
            self.channels, kernel_init=zeros, bias_init=zeros, name="to_pixels"
        )(normed.reshape(h.shape).astype(jnp.float32))

    def _stage(
        self, name: str, h: Features, condition: PerImage, return_features: bool = False
    ) -> tuple[Features, Outputs]:
        """The blocks of one of `STAGES`."""
        grid = h.shape[1:3]
        blocks = stack_blocks(
            self,
            DiCoBlock,
            (grid, self.mlp_ratio, return_features, self.dtype),
            name=name,
            length=self.depths[STAGES.index(name)],
            unroll=self.unroll,
            remat=self.remat,
            broadcast=True,
        )
        rows = h.astype(activation_dtype(self.dtype)).reshape(-1, h.shape[-1])
        out, features = blocks(rows, condition)
        return out.reshape(h.shape), features


def four_to_one(h: Features) -> Float[Array, "batch half_row half_col four_channels"]:
    """Pixels of 2x2 squares as channels of one, as torch's PixelUnshuffle has them.

    Of each channel the four pixels lie side by side, row by row.
    """
    batch, rows, cols, channels = h.shape
    # [batch, row of squares, row in square, col of squares, col in square, channel]
    cut = h.reshape(batch, rows // 2, 2, cols // 2, 2, channels)
    squares = cut.transpose(0, 1, 3, 5, 2, 4)
    return squares.reshape(batch, rows // 2, cols // 2, 4 * channels)


def one_to_four(h: Features) -> Float[Array, "batch two_row two_col quarter_channel"]:
    """Undo `four_to_one`, as torch's PixelShuffle does."""
    batch, rows, cols, channels = h.shape
    # [batch, row of squares, col of squares, channel, row in square, col in square]
    squares = h.reshape(batch, rows, cols, channels // 4, 2, 2)
    cut = squares.transpose(0, 1, 4, 2, 5, 3)
    return cut.reshape(batch, 2 * rows, 2 * cols, channels // 4)


def xavier_of_matrix(
    key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32
) -> Array:
    """Xavier's start of a convolution's kernel as one matrix, [row * col * in, out]."""
    matrix = (math.prod(shape[:-1]), shape[-1])
    return xavier_uniform(key, matrix, dtype).reshape(shape)


def xavier_by_channel(
    key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32
) -> Array:
    """Xavier's start of a depthwise kernel, [row, col, channel], as torch has it.

    Its inputs are those of one channel, its outputs those of all channels.
    """
    return xavier_uniform(key, (*shape[:-1], 1, shape[-1]), dtype).reshape(shape)
