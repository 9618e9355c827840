"""U-ViT's skeleton (arXiv:2209.12152): a stack with long skips, and its head."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.errors import InputError
from dig_jax.graphs import patches_to_image
from dig_jax.models.layers import Convolution, LayerNorm, Linear
from dig_jax.models.stack import stack_blocks, stacked
from dig_jax.ops.products import DType

Rows = Float[Array, "rows width"]
MakeBlock = Callable[..., nn.Module]


def even_depth(depth: int) -> int:
    """The depth of a stack, checked.

    Raises:
        InputError: It is odd, or none.
    """
    if depth % 2 or depth < 2:
        raise InputError(
            f"depth must be even and at least 2 (half of the blocks lie on each side"
            f" of the middle one), got {depth}."
        )
    return depth


def predict_image(
    h: Float[Array, "batch patch width"],
    shape: tuple[int, ...],
    patch_size: int,
    dtype: DType,
) -> Float[Array, "batch row col rgb"]:
    """The head after the stack: norm, linear to each patch's pixels, 3x3 convolution.

    Called in a module's `__call__`: its layers are that module's. float32 out.

    Args:
        h: Features of the patches, row by row.
        shape: (batch, row, col, rgb) of the images.
        patch_size: Side of the patches in pixels.
        dtype: Of the linear layer; the convolution is float32.
    """
    batch, rows, cols, rgb = shape
    # [batch, node, width] to [batch * node, width]
    h = LayerNorm(name="norm")(h).reshape(-1, h.shape[-1])
    pixels = Linear(patch_size**2 * rgb, dtype, name="to_pixels")(h)
    # [batch * node, pixel * rgb] to [batch, node, pixel * rgb]
    pixels = pixels.reshape(batch, -1, patch_size**2 * rgb).astype(jnp.float32)
    image = patches_to_image(pixels, (rows, cols), patch_size)
    return Convolution(rgb, name="smooth")(image)


class InBlock(nn.Module):
    """A block of the first half; hands its output on as a long skip."""

    block: MakeBlock

    @nn.compact
    def __call__(self, h: Rows, _: None) -> tuple[Rows, Rows]:
        h = self.block(name="block")(h)
        return h, h


class OutBlock(nn.Module):
    """A block of the second half: W [h; skip] + b, then the block."""

    block: MakeBlock
    dtype: DType
    return_features: bool

    @nn.compact
    def __call__(self, h: Rows, skip: Rows) -> tuple[Rows, Rows | None]:
        width = h.shape[-1]
        h = Linear(width, self.dtype, use_bias=False, name="fuse_h")(h) + Linear(
            width, self.dtype, name="fuse_skip"
        )(skip)
        h = self.block(name="block")(h)
        return h, h if self.return_features else None


class LongSkipStack(nn.Module):
    """depth/2 blocks, a middle one, and depth/2 blocks that take the skips in reverse.

    out_blocks[i] takes the skip of in_blocks[i]: the second half runs from its last
    block to its first. See `stack_blocks` for how both run.

    Attributes:
        block: Makes a block of `name`, a module from rows to rows.
        depth: Number of blocks besides the middle one; even.
        unroll: Blocks in each turn of the loop; 0 for all (no loop).
        remat: Recompute each block's activations in the backward pass.
    """

    block: MakeBlock
    depth: int
    dtype: DType = "float32"
    unroll: int = 0
    remat: bool = False

    @nn.compact
    def __call__(
        self, h: Rows, return_features: bool = False
    ) -> tuple[Rows, Float[Array, "block rows width"] | None]:
        stack = partial(
            stack_blocks,
            self,
            length=self.depth // 2,
            unroll=self.unroll,
            remat=self.remat,
        )
        h, skips = stack(InBlock, (self.block,), name="in_blocks")(h, None)
        middle_block = nn.remat(InBlock) if self.remat else InBlock
        h, middle_features = middle_block(self.block, name="middle_block")(h, None)
        arguments = (self.block, self.dtype, return_features)
        out_blocks = stack(OutBlock, arguments, name="out_blocks", reverse=True)
        h, out_features = out_blocks(h, skips)
        if not return_features:
            return h, None
        parts = stacked(skips), middle_features[None], stacked(out_features)[::-1]
        return h, jnp.concatenate(parts)
