"""One branch of DiMR: blocks at one resolution, and what leads to the next one.

Features are [batch * token, width], for one image after the other; tokens run row by
row, after the class token where there is one.
"""

from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dig_jax.graphs import patches_to_image
from dig_jax.models.attention import SelfAttention
from dig_jax.models.attention_plan import AttentionPlan
from dig_jax.models.image_layers import Conv2D, DepthwiseConv2D, Patchify
from dig_jax.models.layers import MLP, Linear, by_image, small_normal
from dig_jax.models.stack import stack_blocks
from dig_jax.models.time_norms import RMSNorm, Tau, TimeLayerNorm, TimeRMSNorm
from dig_jax.ops.gelu import gelu
from dig_jax.ops.look_up import look_up
from dig_jax.ops.products import DType, activation_dtype

BlockNorm: TypeAlias = Literal["td_rms", "td_layer", "rms"]
MLPKind: TypeAlias = Literal["geglu", "plain"]
Rows = Float[Array, "rows width"]
Carry: TypeAlias = tuple[Rows, Tau]

NORMS: dict[str, type[nn.Module]] = {
    "td_rms": TimeRMSNorm,
    "td_layer": TimeLayerNorm,
    "rms": RMSNorm,
}


class BlockOptions(NamedTuple):
    """What the blocks of all branches share; see `create_dimr`."""

    norm: BlockNorm
    mlp: MLPKind
    mlp_ratio: float
    kernel_size: int
    attention: AttentionPlan
    dtype: DType
    unroll: int
    remat: bool


class GeGLU(nn.Module):
    """W2 (GELU(W0 h) * W1 h), with the exact GELU (arXiv:2002.05202)."""

    ratio: float
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        hidden = round(h.shape[-1] * self.ratio)
        gate = Linear(hidden, self.dtype, name="gate")(h)
        value = Linear(hidden, self.dtype, name="value")(h)
        return Linear(h.shape[-1], self.dtype, name="project")(gelu(gate) * value)


class Block(nn.Module):
    """h + mix(h), then h + MLP(Norm(h)).

    mix is attention after a norm, or with num_heads=0 a depthwise convolution of the
    grid, without a norm before it: ConvNeXt's block with a second residual.

    Attributes:
        tokens: Tokens of an image.
        cols: Columns of the grid.
        num_heads: Attention heads; 0 for a convolution.
    """

    tokens: int
    cols: int
    num_heads: int
    options: BlockOptions

    @nn.compact
    def __call__(self, rows: Rows, tau: Tau) -> Rows:
        make, h = self.options, by_image(rows, len(tau))
        norm = NORMS[make.norm]
        if self.num_heads:
            attend = SelfAttention(
                self.tokens,
                self.num_heads,
                dtype=make.dtype,
                kernel=make.attention.traced[0],
                name="attention",
            )
            h = h + attend(norm(name="norm")(h, tau))
        else:
            grid = h.reshape(len(tau), -1, self.cols, h.shape[-1])
            mixed = DepthwiseConv2D(make.kernel_size, name="mix")(grid)
            h = h + mixed.reshape(h.shape)
        normed = norm(name="mlp_norm")(h, tau)
        mlp = GeGLU if make.mlp == "geglu" else MLP
        h = h + mlp(make.mlp_ratio, make.dtype, name="mlp")(normed)
        return h.reshape(rows.shape)


class InBlock(nn.Module):
    """A block of the first half or the middle; its output is also a long skip."""

    block: partial

    @nn.compact
    def __call__(self, carry: Carry, _: None) -> tuple[Carry, Rows]:
        h, tau = carry
        h = self.block(name="block")(h, tau)
        return (h, tau), h


class OutBlock(nn.Module):
    """A block of the second half: W [h; skip] + b, then the block."""

    block: partial
    dtype: DType

    @nn.compact
    def __call__(self, carry: Carry, skip: Rows) -> tuple[Carry, Rows]:
        h, tau = carry
        width = h.shape[-1]
        h = Linear(width, self.dtype, use_bias=False, name="fuse_h")(h) + Linear(
            width, self.dtype, name="fuse_skip"
        )(skip)
        h = self.block(name="block")(h, tau)
        return (h, tau), h


class TimedStack(nn.Module):
    """2 (depth // 2) + 1 blocks with long skips, and the output of each.

    As `LongSkipStack`, with a time that each block is told: out_blocks[i] takes the
    skip of in_blocks[i], and the second half runs from its last block to its first.
    """

    depth: int
    block: partial
    options: BlockOptions

    @nn.compact
    def __call__(self, h: Rows, tau: Tau) -> list[Rows]:
        make, half = self.options, self.depth // 2
        run = partial(
            stack_blocks, self, length=half, unroll=make.unroll, remat=make.remat
        )
        carry, skips, out = (h, tau), [], []
        if half:
            carry, skips = run(InBlock, (self.block,), name="in_blocks")(carry, None)
        middle_block = nn.remat(InBlock) if make.remat else InBlock
        carry, middle = middle_block(self.block, name="middle_block")(carry, None)
        if half:
            arguments = (self.block, make.dtype)
            blocks = run(OutBlock, arguments, name="out_blocks", reverse=True)
            _, out = blocks(carry, skips)
        return [*skips, middle, *out[::-1]]


class Upsample(nn.Module):
    """TD-LN, linear to 2x2 pixels of the next width, TD-LN: to twice the side."""

    width: int
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, below: Float[Array, "batch row col features"], tau: Tau
    ) -> Float[Array, "batch patch width"]:
        batch, rows, cols, features = below.shape
        h = TimeLayerNorm(name="in_norm")(below.reshape(-1, features), tau)
        h = Linear(4 * self.width, self.dtype, name="expand")(h)
        # Of the four pixels' features the channel is the fastest index.
        pixels = h.reshape(batch, rows * cols, 4 * self.width)
        h = patches_to_image(pixels, (2 * rows, 2 * cols), 2).reshape(-1, self.width)
        return TimeLayerNorm(name="out_norm")(h, tau).reshape(batch, -1, self.width)


class Branch(nn.Module):
    """All of one resolution: from the image and the branch below to an estimate.

    Attributes:
        width: Of its features.
        depth: Of its stack.
        patch_size: Pixels of the image on a side of each of its own.
        num_heads: Of its Transformer; 0 for ConvNeXt blocks.
        num_labels: Rows of the label table; 0 for no class token.
        features_up: What it hands on; see `create_dimr`.
        options: Of its blocks.
    """

    width: int
    depth: int
    patch_size: int
    num_heads: int
    num_labels: int
    features_up: Literal["all", "last"]
    options: BlockOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        tau: Tau,
        label: Int[Array, "batch"] | None,
        below: Float[Array, "batch low_row low_col features"] | None,
        return_features: bool = False,
    ) -> tuple[Array, Array]:
        """(estimate, features for the next branch), both on the branch's grid.

        With return_features the first is [block, batch, patch, width] instead.
        """
        make = self.options
        batch, rows, cols, rgb = x.shape
        rows, cols = rows // self.patch_size, cols // self.patch_size
        h = Patchify(self.width, self.patch_size, make.dtype, name="patch")(x)
        shape = (rows * cols, self.width)
        h = h.astype(jnp.float32) + self.param("position", small_normal, shape)
        if below is not None:
            h = h + Upsample(self.width, make.dtype, name="upsample")(below, tau)
        if self.num_labels:
            table = self.param(
                "label_embedding", small_normal, (self.num_labels, self.width)
            )
            assert label is not None  # by `as_backbone`
            h = jnp.concatenate([look_up(table, label)[:, None], h], axis=1)
        tokens = h.shape[1]
        h = h.astype(activation_dtype(make.dtype)).reshape(-1, self.width)
        block = partial(Block, tokens, cols, self.num_heads, make)
        stack = TimedStack(self.depth, block, make, name="blocks")
        of_block = stack(h, tau)

        def of_patches(rows_of_tokens: Rows) -> Float[Array, "batch patch features"]:
            whole = rows_of_tokens.reshape(batch, tokens, -1)
            return whole[:, tokens - rows * cols :]

        handed = [h, *of_block] if self.features_up == "all" else of_block[-1:]
        up = jnp.concatenate([of_patches(one) for one in handed], axis=-1)
        up = up.reshape(batch, rows, cols, -1)
        if return_features:
            return jnp.stack([of_patches(one) for one in of_block]), up
        last = of_patches(of_block[-1]).reshape(-1, self.width)
        normed = TimeLayerNorm(name="norm")(last, tau).astype(jnp.float32)
        grid = normed.reshape(batch, rows, cols, self.width)
        return Conv2D(rgb, name="to_pixels")(grid), up
