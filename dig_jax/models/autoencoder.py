"""The KL-f8 autoencoder of latent diffusion (arXiv:2112.10752), as Stable Diffusion's.

Images of [batch, row, col, rgb] in [-1, 1] to latents of an eighth of their side, and
back. The encoder's output is the moments of a normal law: means, then log variances.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dig_jax.errors import InputError
from dig_jax.interfaces import Images, Params
from dig_jax.models.attention import dot_product_attention
from dig_jax.models.image_layers import Conv2D, Features, GroupNorm
from dig_jax.models.layers import Linear, uniform_fan_in
from dig_jax.ops.products import DType

Latents: TypeAlias = Float[Array, "batch low_row low_col channel"]
Moments: TypeAlias = Float[Array, "batch low_row low_col twice_channels"]

SCALE = 0.18215
"""What latents are multiplied by, so that their variance is about 1."""
LOG_VARIANCE_RANGE = (-30.0, 20.0)
EPSILON = 1e-6


@dataclass(frozen=True)
class AutoencoderOptions:
    """The size of an autoencoder; the default is KL-f8, 83,653,863 parameters.

    Attributes:
        widths: Channels of each resolution, the finest first, each of half the side of
            the one before.
        blocks: ResBlocks of each resolution in the encoder; the decoder has one more.
        latent_channels: Of a latent; the moments have twice as many.
        image_channels: Of an image.
        groups: Of the group norms; a divisor of every width.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent_channels: int = 4
    image_channels: int = 3
    groups: int = 32

    def __post_init__(self) -> None:
        bad = [width for width in self.widths if width % self.groups]
        if bad or not self.widths:
            raise InputError(
                f"An autoencoder needs widths that are multiples of its {self.groups} "
                f"groups, got {tuple(self.widths)}."
            )

    @property
    def factor(self) -> int:
        """Side of an image over that of its latent."""
        return 2 ** (len(self.widths) - 1)


class Autoencoder(NamedTuple):
    """An autoencoder as pure functions over one parameter tree.

    Attributes:
        init: Random parameters from a key.
        encode: `(params, images) -> moments`.
        decode: `(params, latents) -> images`, about [-1, 1], not clamped; latents are
            scaled, as `latents_of` gives them.
        options: Its size.
        scale: What latents are multiplied by.
    """

    init: Callable[[jax.Array], Params]
    encode: Callable[[Params, Images], Moments]
    decode: Callable[[Params, Latents], Images]
    options: AutoencoderOptions
    scale: float


def create_autoencoder(
    options: AutoencoderOptions = AutoencoderOptions(),
    *,
    dtype: DType = "float32",
    scale: float = SCALE,
) -> Autoencoder:
    """The autoencoder of that size.

    Args:
        options: Its size.
        dtype: float32, mixed or bfloat16 products; norms and softmax are float32.
        scale: What latents are multiplied by: decoding divides by it.
    """
    encoder, decoder = Encoder(options, dtype), Decoder(options, dtype)

    def init(key: jax.Array) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        side = options.factor
        image = jnp.zeros((1, side, side, options.image_channels))
        latent = jnp.zeros((1, 1, 1, options.latent_channels))
        return {
            "encoder": encoder.init(encoder_key, image)["params"],
            "decoder": decoder.init(decoder_key, latent)["params"],
        }

    def encode(params: Params, images: Images) -> Moments:
        rows, cols = images.shape[1:3]
        if rows % options.factor or cols % options.factor:
            raise InputError(
                f"The autoencoder needs images whose sides are multiples of "
                f"{options.factor}, got {rows}x{cols}."
            )
        return encoder.apply({"params": params["encoder"]}, images)  # type: ignore[return-value]

    def decode(params: Params, latents: Latents) -> Images:
        return decoder.apply({"params": params["decoder"]}, latents / scale)  # type: ignore[return-value]

    return Autoencoder(init, encode, decode, options, scale)


def latents_of(
    moments: Moments, noise: Latents | None = None, scale: float = SCALE
) -> Latents:
    """scale (mean + exp(log variance / 2) noise); without noise scale times the mean.

    Args:
        moments: From the encoder.
        noise: Standard normal.
        scale: What latents are multiplied by.
    """
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    if noise is None:
        return scale * mean
    deviation = jnp.exp(0.5 * jnp.clip(log_variance, *LOG_VARIANCE_RANGE))
    return scale * (mean + deviation * noise)


class ResBlock(nn.Module):
    """x + two convolutions, each after group norm and SiLU."""

    width: int
    groups: int
    dtype: DType

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "batch row col out"]:
        h = nn.silu(GroupNorm(self.groups, EPSILON, name="norm_1")(x))
        h = Conv2D(self.width, dtype=self.dtype, name="conv_1")(h)
        h = nn.silu(GroupNorm(self.groups, EPSILON, name="norm_2")(h))
        h = Conv2D(self.width, dtype=self.dtype, name="conv_2")(h)
        if x.shape[-1] != self.width:
            x = Conv2D(self.width, side=1, dtype=self.dtype, name="shortcut")(x)
        return x + h


class PixelAttention(nn.Module):
    """x + attention among all pixels after group norm, with one head."""

    groups: int
    dtype: DType

    @nn.compact
    def __call__(self, x: Features) -> Features:
        batch, _, _, width = x.shape
        h = GroupNorm(self.groups, EPSILON, name="norm")(x)
        h = h.reshape(batch, -1, width)

        def linear(h: Array, name: str) -> Array:
            init = uniform_fan_in
            return Linear(width, self.dtype, kernel_init=init, name=name)(h)

        # [batch, pixel, head, channel]
        q, k, v = (linear(h, name)[:, :, None] for name in ("q", "k", "v"))
        out = dot_product_attention(q, k, v, self.dtype)
        return x + linear(out.reshape(h.shape), "out").reshape(x.shape)


class Middle(nn.Module):
    """ResBlock, attention, ResBlock at the coarsest resolution."""

    groups: int
    dtype: DType

    @nn.compact
    def __call__(self, x: Features) -> Features:
        width = x.shape[-1]
        x = ResBlock(width, self.groups, self.dtype, name="block_1")(x)
        x = PixelAttention(self.groups, self.dtype, name="attention")(x)
        return ResBlock(width, self.groups, self.dtype, name="block_2")(x)


class Encoder(nn.Module):
    """Images to moments."""

    options: AutoencoderOptions
    dtype: DType

    @nn.compact
    def __call__(self, x: Images) -> Moments:
        make, dtype = self.options, self.dtype
        h = Conv2D(make.widths[0], dtype=dtype, name="conv_in")(x)
        for level, width in enumerate(make.widths):
            if level:
                # A row and a column of zeros at the end alone.
                down = Conv2D(
                    h.shape[-1],
                    dtype=dtype,
                    stride=2,
                    padding=(0, 1),
                    name=f"down_{level - 1}",
                )
                h = down(h)
            for i in range(make.blocks):
                name = f"level_{level}_block_{i}"
                h = ResBlock(width, make.groups, dtype, name=name)(h)
        h = Middle(make.groups, dtype, name="middle")(h)
        h = nn.silu(GroupNorm(make.groups, EPSILON, name="norm")(h))
        h = Conv2D(2 * make.latent_channels, dtype=dtype, name="conv_out")(h)
        h = h.astype(jnp.float32)
        return Conv2D(2 * make.latent_channels, side=1, name="quant")(h)


class Decoder(nn.Module):
    """Latents that are not scaled to images."""

    options: AutoencoderOptions
    dtype: DType

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        make, dtype = self.options, self.dtype
        h = Conv2D(make.latent_channels, side=1, name="post_quant")(z)
        h = Conv2D(make.widths[-1], dtype=dtype, name="conv_in")(h)
        h = Middle(make.groups, dtype, name="middle")(h)
        for level, width in reversed(list(enumerate(make.widths))):
            for i in range(make.blocks + 1):
                name = f"level_{level}_block_{i}"
                h = ResBlock(width, make.groups, dtype, name=name)(h)
            if level:
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
                h = Conv2D(width, dtype=dtype, name=f"up_{level}")(h)
        h = nn.silu(GroupNorm(make.groups, EPSILON, name="norm")(h))
        h = Conv2D(make.image_channels, dtype=dtype, name="conv_out")(h)
        return h.astype(jnp.float32)
