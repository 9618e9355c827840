"""Multi-head self-attention among the tokens of each image (arXiv:1706.03762)."""

import math
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.devices.target import target_platform
from dig_jax.errors import InputError
from dig_jax.models.layers import Linear, truncated_normal
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
        num_tokens: Tokens of an image; rows are images' tokens, image after image.
        num_heads: A divisor of the width.
        kernel: xla or cudnn.
    """

    num_tokens: int
    num_heads: int
    qkv_bias: bool = False
    dtype: DType = "float32"
    kernel: AttentionKernel = "xla"
    kernel_init: nn.initializers.Initializer = truncated_normal

    @nn.compact
    def __call__(self, h: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        width = h.shape[-1]
        qkv = Linear(
            3 * width, self.dtype, self.qkv_bias, self.kernel_init, name="qkv"
        )(h)
        # [batch, token, q k v, head, channel]
        qkv = qkv.reshape(
            -1, self.num_tokens, 3, self.num_heads, width // self.num_heads
        )
        out = dot_product_attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], self.dtype, self.kernel
        )
        project = Linear(
            width, self.dtype, kernel_init=self.kernel_init, name="project"
        )
        return project(out.reshape(h.shape))


def dot_product_attention(
    q: Heads, k: Heads, v: Heads, dtype: DType, kernel: AttentionKernel = "xla"
) -> Heads:
    """softmax(Q K^T / sqrt(channels)) V for each image and head.

    The softmax is taken in float32 whatever the dtype of the products.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        dtype: float32 for products in full precision, else bfloat16 operands.
        kernel: xla or cudnn; the latter needs a bfloat16 dtype.
    """
    if kernel == "cudnn":
        q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
        out = jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
        return out.astype(activation_dtype(dtype))
    batch, tokens, heads, channels = q.shape
    q, k, v = (_by_head(x) for x in (q, k, v))
    logits = batched_matmul(q, k, dtype, transpose_b=True) / math.sqrt(channels)
    weights = jnp.exp(
        logits - jax.lax.stop_gradient(jnp.max(logits, -1, keepdims=True))
    )
    # Divided after the product: fewer channels than tokens, so it is less work.
    out = batched_matmul(weights, v, dtype) / jnp.sum(weights, -1, keepdims=True)
    out = out.reshape(batch, heads, tokens, channels).transpose(0, 2, 1, 3)
    return out.astype(activation_dtype(dtype))


def _by_head(x: Heads) -> Float[Array, "matrix token channel"]:
    """A matrix for each head of each image.

    Products with the heads left in the middle take three times as long on a CPU.
    """
    batch, tokens, heads, channels = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads, tokens, channels)


def choose_attention(
    attention: AttentionKernel, dtype: DType, width: int, num_heads: int
) -> AttentionKernel:
    """Choose once for a whole network what `auto` means: xla or cudnn.

    Raises:
        InputError: Heads that do not divide the width, or cuDNN where it cannot work.
    """
    if width % num_heads:
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        raise InputError(
            f"num_heads must divide the width, got {num_heads} heads for width {width}."
            f" Numbers that fit: {', '.join(map(str, divisors))}."
        )
    if attention == "xla":
        return "xla"
    works = (
        dtype != "float32"
        and target_platform() == "gpu"
        and _cudnn_takes(width // num_heads)
    )
    if attention == "cudnn" and not works:
        raise InputError(
            f"attention='cudnn' needs an NVIDIA GPU, dtype mixed or bfloat16, and heads"
            f" of 8, 16, ..., 128 channels; got {target_platform()}, {dtype} and "
            f"{width // num_heads} channels. The other choices are auto and xla."
        )
    return "cudnn" if works else "xla"


def _cudnn_takes(channels: int) -> bool:
    """Whether cuDNN's attention and its gradient can be traced for heads of that size.

    Tracing makes all of its checks: version, device and shape.
    """

    def attend(q: jax.Array) -> jax.Array:
        out = jax.nn.dot_product_attention(q, q, q, implementation="cudnn")
        return jnp.sum(out.astype(jnp.float32))

    q = jax.ShapeDtypeStruct((1, 2, 1, channels), jnp.bfloat16)
    try:
        jax.eval_shape(jax.grad(attend), q)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True
