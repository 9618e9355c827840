"""U-ViT (arXiv:2209.12152).

Tokens inside the network are [batch * token, width]: label, time, then patches, for one
image after the other. As in the authors' code (baofff/U-ViT), t goes into a sinusoidal
embedding, with no MLP after it, and a 3x3 convolution ends the network.
"""

import math
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.graphs import image_to_patches
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
    sinusoidal_embedding,
    small_normal,
    time_of_step,
    torch_uniform,
    uniform_fan_in,
)
from dig_jax.models.skeleton import LongSkipStack, even_depth, predict_image
from dig_jax.ops.look_up import look_up
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import Rounding, takes_fields_of

Rows = Float[Array, "rows width"]


@dataclass(frozen=True, kw_only=True)
class UViTOptions:
    """The options of `create_uvit`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size d of the tokens.
        depth: Number of blocks besides the middle one; even.
        patch_size: Side of the patches.
        num_heads: Attention heads; a divisor of the width.
        mlp_ratio: Hidden width of the MLPs over the width.
        qkv_bias: Whether queries, keys and values have biases.
        time: What is embedded: 999 t (continuous), or of t = n / 1000 n (step: the
            published weights for latents) or n - 1 (step_from_0).
        attention: How attention is computed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
        token_multiple: Tokens are padded to a multiple of this; no effect on results.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 512
    depth: PositiveInt = 12
    patch_size: PositiveInt = 2
    num_heads: PositiveInt = 8
    mlp_ratio: PositiveFloat = 4.0
    qkv_bias: bool = False
    time: TimeInput = "continuous"
    attention: Rounding[AttentionKernel] = "auto"
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False
    token_multiple: Rounding[PositiveInt] = 1


@takes_fields_of(UViTOptions)
def create_uvit(options: UViTOptions) -> Backbone:
    """U-ViT: a transformer with long skips, time and label as tokens.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    check_patch_sizes(options.image_shape[:2], (options.patch_size,))
    num_labels = options.num_classes + options.null_label
    num_patches = math.prod(
        side // options.patch_size for side in options.image_shape[:2]
    )
    plan = choose_attention(
        options.attention,
        options.dtype,
        width=options.width,
        num_heads=options.num_heads,
        num_tokens=num_patches + 1 + (num_labels > 0),
        token_multiple=options.token_multiple,
    )
    network = UViT(
        patch_size=options.patch_size,
        width=options.width,
        depth=even_depth(options.depth),
        num_heads=options.num_heads,
        mlp_ratio=options.mlp_ratio,
        qkv_bias=options.qkv_bias,
        time=options.time,
        num_labels=num_labels,
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
    )


class TransformerBlock(nn.Module):
    """h + Attention(Norm(h)), then h + MLP(Norm(h))."""

    num_tokens: int
    num_heads: int
    mlp_ratio: float
    qkv_bias: bool
    attention: AttentionKernel
    dtype: DType = "float32"
    padding: int = 0

    @nn.compact
    def __call__(self, h: Rows) -> Rows:
        h = h + SelfAttention(
            self.num_tokens,
            self.num_heads,
            self.qkv_bias,
            self.dtype,
            self.attention,
            padding=self.padding,
            name="attention",
        )(LayerNorm(name="norm")(h))
        update = LayerNorm(name="mlp_norm")(h)
        return h + MLP(self.mlp_ratio, self.dtype, name="mlp")(update)


class UViT(nn.Module):
    """The network around the blocks: image to tokens, blocks, tokens to prediction.

    Attributes:
        num_labels: Rows of the label table; 0 for none, and then no label token.
        attention: What computes it, and how images are padded for that.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    qkv_bias: bool
    time: TimeInput
    num_labels: int
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
        h = self._embed(x, t, label).astype(activation_dtype(self.dtype))
        num_tokens = h.shape[1]
        kernel, padding = self.attention.traced
        h = pad_tokens(h, padding)
        padded = h.shape
        h, features = LongSkipStack(
            block=partial(
                TransformerBlock,
                num_tokens=num_tokens + padding,
                num_heads=self.num_heads,
                mlp_ratio=self.mlp_ratio,
                qkv_bias=self.qkv_bias,
                attention=kernel,
                dtype=self.dtype,
                padding=padding,
            ),
            depth=self.depth,
            dtype=self.dtype,
            unroll=self.unroll,
            remat=self.remat,
            name="blocks",
        )(h.reshape(-1, self.width), return_features)
        num_extras = 2 if self.num_labels else 1
        if features is not None:
            return features.reshape(-1, *padded)[:, :, num_extras:num_tokens]
        patches = h.reshape(padded)[:, num_extras:num_tokens]
        return predict_image(patches, x.shape, self.patch_size, self.dtype)

    def _embed(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
    ) -> Float[Array, "batch token width"]:
        """Features of label, time and patches, with their positions."""
        patches = image_to_patches(x, self.patch_size)
        # A convolution in the authors' code, which starts as torch's do.
        patches = Linear(
            self.width,
            self.dtype,
            kernel_init=uniform_fan_in,
            bias_init=torch_uniform(patches.shape[-1]),
            name="patch",
        )(patches)
        time = time_of_step(t, self.time)
        parts = [sinusoidal_embedding(time, self.width)[:, None], patches]
        if self.num_labels:
            table = self.param(
                "label_embedding",
                nn.initializers.normal(1.0),  # torch's default for a table
                (self.num_labels, self.width),
            )
            assert label is not None  # by `as_backbone`
            parts.insert(0, look_up(table, label)[:, None])
        h = jnp.concatenate([part.astype(jnp.float32) for part in parts], axis=1)
        return h + self.param("position", small_normal, h.shape[1:])
