"""What computes a network's attention: proven to work before the network is made."""

import math
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
from absl import logging

from dig_jax.devices.target import (
    Target,
    compute_capability,
    current_target,
    target_platform,
)
from dig_jax.errors import InputError
from dig_jax.models.attention import AttentionKernel, dot_product_attention
from dig_jax.ops.products import DType

LEAST_CAPABILITY = (8, 0)
"""cuDNN's attention needs Ampere; JAX does not ask."""


@dataclass(frozen=True)
class AttentionPlan:
    """How attention is computed; no effect on parameters or, to rounding, results.

    Attributes:
        num_tokens: Tokens of an image, without padding.
        kernel: xla or cudnn, on the platform that the network was made for.
        padding: Tokens that are added to each image for it.
        plain_padding: Tokens that are added for xla on any platform.
        refusal: Why not cudnn, on a GPU where `auto` would have taken it; "" elsewhere.
    """

    num_tokens: int
    kernel: AttentionKernel = "xla"
    padding: int = 0
    plain_padding: int = 0
    refusal: str = ""

    @property
    def traced(self) -> tuple[AttentionKernel, int]:
        """(kernel, padding) where a program is traced: cudnn for GPUs alone.

        A network that was made for a GPU is traced for a CPU to count what it costs.
        """
        if self.kernel == "cudnn" and target_platform() != "gpu":
            return "xla", self.plain_padding
        return self.kernel, self.padding

    def unpadded(self) -> "AttentionPlan":
        """The plan of a network that pads nothing: plain where cuDNN needs padding."""
        if self.kernel == "cudnn" and self.padding:
            why = f"{self.num_tokens} tokens would need padding"
            return AttentionPlan(self.num_tokens, refusal=why)
        return self

    def __str__(self) -> str:
        """In words."""
        kernel = "cuDNN's" if self.kernel == "cudnn" else "plain products"
        padded = self.num_tokens + self.padding
        tokens = (
            f", {self.num_tokens} tokens padded to {padded}" if self.padding else ""
        )
        why = f"; cuDNN's does not work here: {self.refusal}" if self.refusal else ""
        return kernel + tokens + why


def check_heads(width: int, num_heads: int) -> None:
    """Raise InputError for heads that do not divide the width."""
    if width % num_heads:
        divisors = [n for n in range(1, width + 1) if width % n == 0]
        raise InputError(
            f"num_heads must divide the width, got {num_heads} heads for width {width}."
            f" Numbers that fit: {', '.join(map(str, divisors))}."
        )


def choose_attention(
    attention: AttentionKernel,
    dtype: DType,
    *,
    width: int,
    num_heads: int,
    num_tokens: int,
    token_multiple: int = 1,
) -> AttentionPlan:
    """Choose once for a whole network what `auto` means, and how images are padded.

    cuDNN is taken where attention and its gradient can be traced for the network's own
    shape, which makes JAX's checks, and on this machine's GPU only after it has run
    them there, too: a driver or cuDNN that is too old, or a shape that cuDNN itself
    refuses, is known by trying alone.

    Args:
        attention: auto, xla or cudnn.
        dtype: The network's.
        width: Of the tokens.
        num_heads: A divisor of the width.
        num_tokens: Tokens of an image.
        token_multiple: Tokens are padded to a multiple of this, and for cuDNN further
            where it refuses that.

    Raises:
        InputError: Heads that do not divide the width, or cuDNN where it cannot work.
    """
    check_heads(width, num_heads)
    plain_padding = -num_tokens % token_multiple
    plain = AttentionPlan(num_tokens, "xla", plain_padding, plain_padding)
    if attention == "xla":
        return plain
    channels = width // num_heads
    if dtype == "float32" or target_platform() != "gpu":
        refusal = f"got {target_platform()} and {dtype}"
    else:
        for padding in _paddings(num_tokens, token_multiple):
            shape = (1, num_tokens + padding, num_heads, channels)
            refusal = _refusal(shape, padding, current_target())
            if not refusal:
                return AttentionPlan(num_tokens, "cudnn", padding, plain_padding)
        plain = AttentionPlan(
            num_tokens, "xla", plain_padding, plain_padding, refusal=refusal
        )
    if attention == "cudnn":
        raise InputError(
            "attention='cudnn' needs an NVIDIA GPU of compute capability 8.0 or newer "
            "with its cuDNN, dtype mixed or bfloat16, and heads of 8, 16, ..., 128 "
            f"channels; with {num_tokens} tokens and heads of {channels} channels: "
            f"{refusal}. The other choices are auto and xla."
        )
    if plain.refusal:
        logging.log_first_n(logging.WARNING, "Attention: %s.", 1, plain)
    return plain


def _paddings(num_tokens: int, token_multiple: int) -> list[int]:
    """Tokens to add, the fewest first.

    JAX lets cuDNN's gradient have even numbers alone; old versions of cuDNN ask for
    multiples of 64. Each token is a row in all products of the network.
    """
    multiples = (math.lcm(token_multiple, n) for n in (1, 2, 8, 64))
    return sorted({-num_tokens % multiple for multiple in multiples})


@lru_cache
def _refusal(
    shape: tuple[int, int, int, int], padding: int, target: Target | None
) -> str:
    """Why cuDNN's attention or its gradient does not work; "" where both do.

    Args:
        shape: (image, token, head, channel), padding included.
        padding: Tokens of an image that are padding.
        target: What is compiled for, where it is not this machine.
    """
    if target is not None and target.gpu is None:
        return "it is not said for which GPU"
    capability = compute_capability()
    if capability is not None and capability < LEAST_CAPABILITY:
        return "the GPU's compute capability is {}.{}".format(*capability)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out = dot_product_attention(q, k, v, "bfloat16", "cudnn", padding=padding)
        return jnp.sum(out.astype(jnp.float32))

    def attend_and_differentiate(*heads: jax.Array) -> tuple:
        return attend(*heads), jax.grad(attend, argnums=(0, 1, 2))(*heads)

    try:
        heads = (jax.ShapeDtypeStruct(shape, jnp.bfloat16),) * 3
        jax.eval_shape(attend_and_differentiate, *heads)
        if target is None:
            heads = (jnp.zeros(shape, jnp.bfloat16),) * 3
            jax.block_until_ready(jax.jit(attend_and_differentiate)(*heads))
    except (RuntimeError, ValueError) as error:  # NotImplementedError is one of them
        return str(error).strip().partition("\n")[0].rstrip(".")
    return ""
