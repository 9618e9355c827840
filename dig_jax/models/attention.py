"""Multi-head self-attention among the tokens of each image (arXiv:1706.03762).

An image's last tokens may be padding, which no token attends to: what computes it
may want another number of tokens than an image has (`attention_plan.py`).
"""

import math
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.models.layers import Linear, small_normal
from dig_jax.ops.products import DType, activation_dtype, batched_matmul

AttentionKernel: TypeAlias = Literal["auto", "xla", "cudnn"]
"""What computes attention's products; no effect on parameters or, to rounding, results.

xla: plain products and a softmax, on any platform, differentiable in every way.
cudnn: cuDNN's flash attention, on NVIDIA GPUs with bfloat16 products. It never stores
the weights of the attention, has no forward-mode derivative (`jax.jvp`), and its
gradient repeats bit for bit only with XLA_FLAGS=--xla_gpu_deterministic_ops=true.
auto: cudnn where that works, else xla.
"""

Heads = Float[Array, "batch token head channel"]


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(channels)) V of each head, and a linear layer with bias.

    The kernel of `qkv` is [width, 3 width], its outputs in the order (q, k or v; head;
    channel), as in U-ViT and DiT.

    Attributes:
        num_tokens: Tokens of an image; rows are images' tokens, image after image, or
            have an axis of images before theirs.
        num_heads: A divisor of the width.
        kernel: xla or cudnn.
        padding: How many of an image's last tokens are padding.
    """

    num_tokens: int
    num_heads: int
    qkv_bias: bool = False
    dtype: DType = "float32"
    kernel: AttentionKernel = "xla"
    kernel_init: nn.initializers.Initializer = small_normal
    padding: int = 0

    @nn.compact
    def __call__(self, h: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
        width = h.shape[-1]
        qkv = Linear(
            3 * width, self.dtype, self.qkv_bias, self.kernel_init, name="qkv"
        )(h)
        # [batch, token, q k v, head, channel]
        qkv = qkv.reshape(
            -1, self.num_tokens, 3, self.num_heads, width // self.num_heads
        )
        out = dot_product_attention(
            qkv[:, :, 0],
            qkv[:, :, 1],
            qkv[:, :, 2],
            self.dtype,
            self.kernel,
            padding=self.padding,
        )
        project = Linear(
            width, self.dtype, kernel_init=self.kernel_init, name="project"
        )
        return project(out.reshape(h.shape))


def dot_product_attention(
    q: Heads,
    k: Heads,
    v: Heads,
    dtype: DType,
    kernel: AttentionKernel = "xla",
    *,
    padding: int = 0,
) -> Heads:
    """softmax(Q K^T / sqrt(channels)) V for each image and head.

    The softmax is taken in float32 whatever the dtype of the products. Padding attends
    as other tokens do, so that its numbers are finite, and no token attends to it.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        dtype: float32 for products in full precision, else bfloat16 operands.
        kernel: xla or cudnn; the latter needs a bfloat16 dtype.
        padding: How many of the last tokens are padding.
    """
    batch, tokens, heads, channels = q.shape
    if kernel == "cudnn":
        q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
        lengths = jnp.full(batch, tokens - padding, jnp.int32) if padding else None
        out = jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths, implementation="cudnn"
        )
        return out.astype(activation_dtype(dtype))
    k, v = (x[:, : tokens - padding] for x in (k, v))
    q, k, v = (_by_head(x) for x in (q, k, v))
    logits = batched_matmul(q, k, dtype, transpose_b=True) / math.sqrt(channels)
    weights = jnp.exp(
        logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    )
    # Divided after the product: fewer channels than tokens, so it is less work.
    out = batched_matmul(weights, v, dtype) / jnp.sum(weights, -1, keepdims=True)
    out = out.reshape(batch, heads, tokens, channels).transpose(0, 2, 1, 3)
    return out.astype(activation_dtype(dtype))


def pad_tokens(
    h: Float[Array, "batch token width"], padding: int
) -> Float[Array, "batch padded width"]:
    """Rows of zeros after each image's tokens."""
    return jnp.pad(h, ((0, 0), (0, padding), (0, 0))) if padding else h


def _by_head(x: Heads) -> Float[Array, "matrix token channel"]:
    """A matrix for each head of each image.

    Products with the heads left in the middle take three times as long on a CPU.
    """
    batch, tokens, heads, channels = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads, tokens, channels)
