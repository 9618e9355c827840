"""DiT with adaLN-Zero (arXiv:2212.09748).

As in the authors' code (facebookresearch/DiT); the variance is fixed, or learned in as
many channels more as the image has. Tokens are the patches; time and label modulate the
norms of each block. Tokens inside the network are [batch * token, width], for one image
after the other.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs import image_to_patches, patches_to_image
from dig_jax.graphs.patches import check_patch_sizes
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.attention import AttentionKernel, SelfAttention, pad_tokens
from dig_jax.models.attention_plan import AttentionPlan, choose_attention
from dig_jax.models.layers import (
    MLP,
    LayerNorm,
    Linear,
    TimeInput,
    by_image,
    sinusoidal_embedding,
    small_normal,
    time_of_step,
)
from dig_jax.models.stack import stack_blocks, stacked
from dig_jax.ops.look_up import look_up
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import Rounding, takes_fields_of

Rows = Float[Array, "rows width"]
Tokens = Float[Array, "batch token width"]
PerImage = Float[Array, "batch width"]

TIME_CHANNELS = 256
xavier_uniform = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros


@dataclass(frozen=True, kw_only=True)
class DiTOptions:
    """The options of `create_dit`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size d of the tokens; a multiple of 4.
        depth: Number of blocks.
        patch_size: Side of the patches.
        num_heads: Attention heads; a divisor of the width.
        mlp_ratio: Hidden width of the MLPs over the width.
        time: What is embedded: 999 t (continuous), or of t = n / 1000 n (step) or n - 1
            (step_from_0: the published weights).
        learned_variance: Predict as many channels of variance as the image has, too
            (`Backbone.with_variance`). `objective.variance_loss` trains them.
        attention: How attention is computed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        token_multiple: Tokens are padded to a multiple of this; no effect on results.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 384
    depth: PositiveInt = 12
    patch_size: PositiveInt = 2
    num_heads: PositiveInt = 6
    mlp_ratio: PositiveFloat = 4.0
    time: TimeInput = "continuous"
    learned_variance: bool = False
    attention: Rounding[AttentionKernel] = "auto"
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False
    token_multiple: Rounding[PositiveInt] = 1


@takes_fields_of(DiTOptions)
def create_dit(options: DiTOptions) -> Backbone:
    """DiT: a transformer whose norms are modulated by time and label (adaLN-Zero).

    Counts in the literature include the fixed table of positions, (patches x width);
    here it is no parameter.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    check_patch_sizes(options.image_shape[:2], (options.patch_size,))
    if options.width % 4:
        raise InputError(
            f"The width of a DiT must be a multiple of 4 (sines and cosines of rows and"
            f" columns), got {options.width}; {-(-options.width // 4) * 4} would do."
        )
    num_labels = options.num_classes + options.null_label
    num_patches = math.prod(
        side // options.patch_size for side in options.image_shape[:2]
    )
    plan = choose_attention(
        options.attention,
        options.dtype,
        width=options.width,
        num_heads=options.num_heads,
        num_tokens=num_patches,
        token_multiple=options.token_multiple,
    )
    rgb = options.image_shape[2]
    network = DiT(
        channels=2 * rgb if options.learned_variance else rgb,
        patch_size=options.patch_size,
        width=options.width,
        depth=options.depth,
        num_heads=options.num_heads,
        mlp_ratio=options.mlp_ratio,
        num_labels=num_labels,
        time=options.time,
        attention=plan,
        dtype=options.dtype,
        unroll=options.unroll,
        remat=options.remat,
    )
    return as_backbone(
        network,
        options.image_shape,
        options.num_classes,
        null_label=options.null_label,
        attention=str(plan),
        learned_variance=options.learned_variance,
    )


def grid_positions(
    rows: int, cols: int, width: int
) -> Float[np.ndarray, "token width"]:
    """Fixed 2-D position embedding: sin(col), cos(col), sin(row), cos(row).

    Each has width / 4 frequencies 10000^(-i / (width / 4)); tokens run row by row.
    """
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, col = np.divmod(np.arange(rows * cols), cols)
    angles = np.stack([col, row])[:, :, None] * frequencies
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return np.concatenate([*waves], axis=-1)


class ModulatedNorm(nn.Module):
    """LayerNorm(h) * (1 + scale) + shift, with a scale and a shift for each image."""

    @nn.compact
    def __call__(self, h: Tokens, shift: PerImage, scale: PerImage) -> Tokens:
        y = LayerNorm(epsilon=1e-6, affine=False)(h.astype(jnp.float32))
        y = y * (1 + scale[:, None]) + shift[:, None]
        return y.astype(h.dtype)


class DiTBlock(nn.Module):
    """h + gate * Attention(Norm(h)), then h + gate * MLP(Norm(h)), norms modulated."""

    num_heads: int
    mlp_ratio: float
    attention: AttentionKernel
    return_features: bool
    dtype: DType = "float32"
    padding: int = 0

    @nn.compact
    def __call__(self, rows: Rows, condition: PerImage) -> tuple[Rows, Rows | None]:
        batch, width = condition.shape
        h = by_image(rows, batch)
        modulation = Linear(
            6 * width, self.dtype, kernel_init=zeros, name="modulation"
        )(nn.silu(condition))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = jnp.split(
            modulation, 6, axis=-1
        )
        update = SelfAttention(
            h.shape[1],
            self.num_heads,
            qkv_bias=True,
            dtype=self.dtype,
            kernel=self.attention,
            kernel_init=xavier_uniform,
            padding=self.padding,
            name="attention",
        )(ModulatedNorm()(h, shift, scale))
        h = h + gate[:, None] * update
        update = MLP(
            self.mlp_ratio,
            self.dtype,
            tanh_gelu=True,
            kernel_init=xavier_uniform,
            name="mlp",
        )(ModulatedNorm()(h, mlp_shift, mlp_scale))
        h = (h + mlp_gate[:, None] * update).reshape(rows.shape)
        return h, h if self.return_features else None


class DiT(nn.Module):
    """The network around the blocks: image to tokens, blocks, tokens to prediction.

    See `stack_blocks` for how the blocks run.

    Attributes:
        channels: Of the output.
        num_labels: Rows of the label table; 0 for none.
        attention: What computes it, and how images are padded for that.
    """

    channels: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_labels: int
    time: TimeInput
    attention: AttentionPlan
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
        _, rows, cols, _ = x.shape
        condition = embed_time_and_label(self, t, label)
        patches = image_to_patches(x, self.patch_size)
        h = Linear(self.width, self.dtype, kernel_init=xavier_uniform, name="patch")(
            patches
        )
        size = self.patch_size
        h = h + grid_positions(rows // size, cols // size, self.width).astype("float32")
        kernel, padding = self.attention.traced
        h = pad_tokens(h.astype(activation_dtype(self.dtype)), padding)
        padded, num_tokens = h.shape, patches.shape[1]
        h, features = stack_blocks(
            self,
            DiTBlock,
            (
                self.num_heads,
                self.mlp_ratio,
                kernel,
                return_features,
                self.dtype,
                padding,
            ),
            name="blocks",
            length=self.depth,
            unroll=self.unroll,
            remat=self.remat,
            broadcast=True,
        )(h.reshape(-1, self.width), condition)
        if return_features:
            return stacked(features).reshape(-1, *padded)[:, :, :num_tokens]
        h = h.reshape(padded)[:, :num_tokens]

        shift, scale = jnp.split(
            Linear(2 * self.width, self.dtype, kernel_init=zeros, name="modulation")(
                nn.silu(condition)
            ),
            2,
            axis=-1,
        )
        pixels = Linear(
            size**2 * self.channels, self.dtype, kernel_init=zeros, name="to_pixels"
        )(ModulatedNorm()(h, shift, scale))
        return patches_to_image(pixels.astype(jnp.float32), (rows, cols), size)


def embed_time_and_label(
    network: Any, t: Float[Array, "batch"], label: Int[Array, "batch"] | None
) -> PerImage:
    """An MLP of the sinusoidal embedding of the time, plus the label's embedding.

    Args:
        network: The module that is being called, to which the parameters belong; it has
            a width, a dtype, num_labels and a time (`TimeInput`).
        t: Diffusion time in [0, 1].
        label: None where there are no labels.
    """
    time = embed_time(network, t)
    return time + embed_label(network, label) if network.num_labels else time


def embed_time(network: Any, t: Float[Array, "batch"]) -> PerImage:
    """The first of the two parts of `embed_time_and_label`."""
    linear = partial(Linear, network.width, network.dtype, kernel_init=small_normal)
    time = time_of_step(t, network.time)
    h = linear(name="time_expand")(sinusoidal_embedding(time, TIME_CHANNELS))
    return linear(name="time_project")(nn.silu(h)).astype(jnp.float32)


def embed_label(network: Any, label: Int[Array, "batch"] | None) -> PerImage:
    """The second part, of a network that has labels."""
    shape = (network.num_labels, network.width)
    table = network.param("label_embedding", small_normal, shape)
    assert label is not None  # by `as_backbone`
    return look_up(table, label)
