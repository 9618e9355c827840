"""DiffiT in image space: a U-shaped network of convolutions and windowed attention.

arXiv:2312.02139, Sec. 3.2.2, H.1 and I.1; there is no official code. What the paper
leaves open is read as docs/diffit.md says. Features inside the network are
[batch, row, col, width].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs.patches import check_patch_sizes
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.attention_plan import check_heads
from dig_jax.models.image_layers import Conv2D, Features, GroupNorm
from dig_jax.models.layers import MLP, LayerNorm, Linear, sinusoidal_embedding
from dig_jax.models.window_attention import Grid, WindowAttention
from dig_jax.ops.look_up import look_up
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import Rounding, takes_fields_of

TimeIn: TypeAlias = Literal["qkv", "bias", "mlp"]
TimeEmbedding: TypeAlias = Literal["sinusoidal", "fourier"]
Condition = Float[Array, "batch time_width"]

xavier_uniform = nn.initializers.xavier_uniform()
small_normal = nn.initializers.normal(0.02)
FOURIER_SCALE = 16.0
"""Standard deviation of the Fourier frequencies (EDM's, arXiv:2206.00364)."""


class BlockOptions(NamedTuple):
    """What all blocks share; see `create_diffit_image`."""

    num_heads: int
    mlp_ratio: float
    window: int | None
    time_in: TimeIn
    dtype: DType


@dataclass(frozen=True, kw_only=True)
class DiffiTImageOptions:
    """The options of `create_diffit_image`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network, as published.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Channels at full resolution; all coarser stages have twice as many.
        depth: Blocks of each stage, on the way down and up.
        stages: Number of resolutions, each of half the side of the one before.
        stage_widths: Each stage's own width, the finest first; () for the above.
        stage_depths: Each stage's own number of blocks; () for the above.
        window: Side in pixels of the windows that attention is within, in every stage;
            None for whole images.
        num_heads: Attention heads; a divisor of every width.
        mlp_ratio: Hidden width of the MLPs over the width.
        time_width: Size of the time embedding; None for four times the width.
        time_embedding: sinusoidal, or fourier: random frequencies (Sec. 5.6).
        time_in: What a block's condition is added to: queries, keys and values (qkv:
            TMSA), the relative position bias (bias), or the MLP's input in place of
            that bias (mlp): H, F and G of Sec. 5.4.
        skips: How a stage on the way up takes what the one on the way down made: added
            to its first block's output, or concatenated to its input.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        remat: Recompute each block's activations in the backward pass.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 128
    depth: PositiveInt = 2
    stages: PositiveInt = 4
    stage_widths: tuple[PositiveInt, ...] = ()
    stage_depths: tuple[PositiveInt, ...] = ()
    window: PositiveInt | None = 8
    num_heads: PositiveInt = 4
    mlp_ratio: PositiveFloat = 4.0
    time_width: PositiveInt | None = None
    time_embedding: TimeEmbedding = "sinusoidal"
    time_in: TimeIn = "qkv"
    skips: Literal["add", "concat"] = "add"
    dtype: DType = "float32"
    remat: Rounding[bool] = False


@takes_fields_of(DiffiTImageOptions)
def create_diffit_image(options: DiffiTImageOptions) -> Backbone:
    """Image-space DiffiT; `features` are those of the blocks at full resolution.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    check_patch_sizes(options.image_shape[:2], (2 ** (options.stages - 1),))
    widths = options.stage_widths or (
        options.width,
        *[2 * options.width] * (options.stages - 1),
    )
    depths = options.stage_depths or (options.depth,) * options.stages
    for name, given in (("stage_widths", widths), ("stage_depths", depths)):
        if len(given) != options.stages:
            raise InputError(
                f"{name} must have one number for each of the {options.stages} stages, "
                f"got {tuple(given)}."
            )
    for stage, one in enumerate(widths):
        check_heads(one, options.num_heads)
        if one % num_groups(one):
            raise InputError(
                f"A width must be a multiple of its {num_groups(one)} groups of "
                f"channels (32, or a quarter of it if that is less), got {one}."
            )
        rows, cols = (side // 2**stage for side in options.image_shape[:2])
        Grid.create(rows, cols, options.window)
    network = DiffiTImage(
        widths=tuple(widths),
        depths=tuple(depths),
        channels=options.image_shape[2],
        time_width=options.time_width or 4 * options.width,
        time_embedding=options.time_embedding,
        num_labels=options.num_classes + options.null_label,
        skips=options.skips,
        remat=options.remat,
        options=BlockOptions(
            options.num_heads,
            options.mlp_ratio,
            options.window,
            options.time_in,
            options.dtype,
        ),
    )
    return as_backbone(
        network, options.image_shape, options.num_classes, null_label=options.null_label
    )


def num_groups(width: int) -> int:
    """Groups of a group norm: EDM's rule for narrow networks."""
    return max(min(32, width // 4), 1)


def group_norm(width: int, name: str) -> GroupNorm:
    """The group norm of features of that width."""
    return GroupNorm(num_groups(width), 1e-5, name=name)


class TransformerBlock(nn.Module):
    """x + TMSA(LN(x), c), then x + MLP(LN(x)) (Eq. 7-8), on a grid of pixels."""

    options: BlockOptions

    @nn.compact
    def __call__(self, x: Features, condition: Condition) -> Features:
        make = self.options
        norm = partial(LayerNorm, epsilon=1e-6)
        batch, rows, cols, width = x.shape
        h = x.reshape(-1, width)
        attend = WindowAttention(
            Grid.create(rows, cols, make.window),
            make.num_heads,
            make.dtype,
            xavier_uniform,
            time_in="none" if make.time_in == "mlp" else make.time_in,
            position_bias=make.time_in != "mlp",
            name="attention",
        )
        h = h + attend(norm(name="norm")(h), condition)
        update = norm(name="mlp_norm")(h)
        if make.time_in == "mlp":
            linear = Linear(width, make.dtype, kernel_init=xavier_uniform, name="time")
            moved = linear(condition)[:, None]
            update = (update.reshape(batch, -1, width) + moved).reshape(h.shape)
        h = h + MLP(
            make.mlp_ratio,
            make.dtype,
            tanh_gelu=True,
            kernel_init=xavier_uniform,
            name="mlp",
        )(update)
        return h.reshape(x.shape)


class ResBlock(nn.Module):
    """x + Block(Conv(swish(GN(x))), c) (Eq. 9-10); x is projected to another width."""

    width: int
    options: BlockOptions

    @nn.compact
    def __call__(
        self, x: Features, condition: Condition
    ) -> Float[Array, "batch row col out"]:
        dtype = self.options.dtype
        h = nn.silu(group_norm(x.shape[-1], "norm")(x))
        h = Conv2D(self.width, dtype=dtype, name="conv")(h)
        h = TransformerBlock(self.options, name="block")(h, condition)
        if x.shape[-1] != self.width:
            x = Conv2D(self.width, side=1, dtype=dtype, name="shortcut")(x)
        return x + h


class DiffiTImage(nn.Module):
    """The way down, and the way up with a skip in each stage.

    Attributes:
        widths: Of each stage, the finest first.
        depths: Blocks of each.
        channels: Of the image.
        num_labels: Rows of the label table; 0 for none.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    channels: int
    time_width: int
    time_embedding: TimeEmbedding
    num_labels: int
    skips: Literal["add", "concat"]
    remat: bool
    options: BlockOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> Array:
        dtype = self.options.dtype
        condition = self._condition(t, label)
        h = Conv2D(self.widths[0], dtype=dtype, name="from_pixels")(x)
        h = h.astype(activation_dtype(dtype))
        saved, features = [], []
        for stage, width in enumerate(self.widths):
            if stage:
                kept = h.shape[-1]
                down = Conv2D(
                    kept, dtype=dtype, stride=2, padding=(1, 1), name=f"down_{stage}"
                )
                h = down(h)
            blocks = self._run(f"down_{stage}", width, h, condition, None)
            saved.append(blocks[-1])
            features += [] if stage else blocks
            h = blocks[-1]
        for stage in reversed(range(len(self.widths) - 1)):
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
            h = Conv2D(h.shape[-1], dtype=dtype, name=f"up_{stage}")(h)
            blocks = self._run(
                f"up_{stage}", self.widths[stage], h, condition, saved[stage]
            )
            features += [] if stage else blocks
            h = blocks[-1]
        if return_features:
            return jnp.stack(
                [one.reshape(len(x), -1, one.shape[-1]) for one in features]
            )
        h = nn.silu(group_norm(h.shape[-1], "norm")(h)).astype(jnp.float32)
        zeros = nn.initializers.zeros
        return Conv2D(self.channels, kernel_init=zeros, name="to_pixels")(h)

    def _run(
        self,
        name: str,
        width: int,
        h: Features,
        condition: Condition,
        skip: Float[Array, "batch row col skip_width"] | None,
    ) -> Sequence[Float[Array, "batch row col out"]]:
        """The output of each block of a stage."""
        block = nn.remat(ResBlock) if self.remat else ResBlock
        outputs = []
        stage = int(name.rpartition("_")[2])
        for i in range(self.depths[stage]):
            if i == 0 and skip is not None and self.skips == "concat":
                h = jnp.concatenate([h, skip], axis=-1)
            h = block(width, self.options, name=f"{name}_block_{i}")(h, condition)
            if i == 0 and skip is not None and self.skips == "add":
                h = h + skip
            outputs.append(h)
        return outputs

    def _condition(
        self, t: Float[Array, "batch"], label: Int[Array, "batch"] | None
    ) -> Condition:
        """An MLP of the embedding of t, plus the label's embedding."""
        linear = partial(
            Linear, self.time_width, self.options.dtype, kernel_init=small_normal
        )
        width = self.widths[0]
        if self.time_embedding == "sinusoidal":
            waves = sinusoidal_embedding(999.0 * t, width)
        else:
            waves = fourier_embedding(t, width)
        h = linear(name="time_expand")(waves)
        h = linear(name="time_project")(nn.silu(h)).astype(jnp.float32)
        if not self.num_labels:
            return h
        table = self.param(
            "label_embedding", small_normal, (self.num_labels, self.time_width)
        )
        assert label is not None  # by `as_backbone`
        return h + look_up(table, label)


def fourier_embedding(
    t: Float[Array, "batch"], width: int
) -> Float[Array, "batch width"]:
    """Cosines and sines of t at random frequencies, always the same ones."""
    frequencies = FOURIER_SCALE * np.random.default_rng(0).normal(size=width // 2)
    angles = 2 * np.pi * t[:, None] * frequencies.astype(np.float32)
    waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    return jnp.pad(waves, ((0, 0), (0, width % 2)))
