"""Latent DiffiT: a transformer with time in its queries, keys and values (TMSA).

arXiv:2312.02139, and the authors' code (NVlabs/DiffiT) where the two differ:
docs/diffit.md has the list. Tokens inside the network are [batch * token, width], for
one image after the other.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.errors import InputError
from dig_jax.graphs import image_to_patches, patches_to_image
from dig_jax.graphs.patches import check_patch_sizes
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.attention_plan import check_heads
from dig_jax.models.dit import embed_time_and_label, grid_positions
from dig_jax.models.layers import MLP, LayerNorm, Linear, TimeInput
from dig_jax.models.stack import stack_blocks, stacked
from dig_jax.models.window_attention import Grid, WindowAttention
from dig_jax.ops.products import DType, activation_dtype
from dig_jax.options.keys import Rounding, takes_fields_of

Rows = Float[Array, "rows width"]
PerImage = Float[Array, "batch width"]

xavier_uniform = nn.initializers.xavier_uniform()


@dataclass(frozen=True, kw_only=True)
class DiffiTOptions:
    """The options of `create_diffit`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size d of the tokens; a multiple of 4.
        depth: Number of blocks: 28 in the code and by the published parameters, 30 in
            the paper's text.
        patch_size: Side of the patches.
        num_heads: Attention heads; a divisor of the width.
        mlp_ratio: Hidden width of the MLPs over the width.
        window: Side in patches of the windows that attention is within; None for the
            whole grid, as published.
        time: What is embedded: 999 t (continuous), or of t = n / 1000 n (step) or n - 1
            (step_from_0: the published weights).
        learned_variance: Predict as many channels of variance as the image has, too
            (`Backbone.with_variance`). `objective.variance_loss` trains them.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 1152
    depth: PositiveInt = 28
    patch_size: PositiveInt = 2
    num_heads: PositiveInt = 16
    mlp_ratio: PositiveFloat = 4.0
    window: PositiveInt | None = None
    time: TimeInput = "continuous"
    learned_variance: bool = False
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False


@takes_fields_of(DiffiTOptions)
def create_diffit(options: DiffiTOptions) -> Backbone:
    """Latent DiffiT; the default is the published size, 561 million parameters.

    The fixed table of positions is no parameter here.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    rows, cols, rgb = options.image_shape
    check_patch_sizes((rows, cols), (options.patch_size,))
    if options.width % 4:
        raise InputError(
            f"The width of a DiffiT must be a multiple of 4 (sines and cosines of rows "
            f"and columns), got {options.width}; {-(-options.width // 4) * 4} would do."
        )
    check_heads(options.width, options.num_heads)
    network = DiffiT(
        grid=Grid.create(
            rows // options.patch_size, cols // options.patch_size, options.window
        ),
        channels=2 * rgb if options.learned_variance else rgb,
        patch_size=options.patch_size,
        width=options.width,
        depth=options.depth,
        num_heads=options.num_heads,
        mlp_ratio=options.mlp_ratio,
        num_labels=options.num_classes + options.null_label,
        time=options.time,
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


class DiffiTBlock(nn.Module):
    """h + TMSA(Norm(h), condition), then h + MLP(Norm(h)); norms without parameters."""

    grid: Grid
    num_heads: int
    mlp_ratio: float
    return_features: bool
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, h: Rows, condition: PerImage) -> tuple[Rows, Rows | None]:
        norm = partial(LayerNorm, epsilon=1e-6, affine=False)
        h = h + WindowAttention(
            self.grid, self.num_heads, self.dtype, xavier_uniform, name="attention"
        )(norm()(h), condition)
        h = h + MLP(
            self.mlp_ratio,
            self.dtype,
            tanh_gelu=True,
            kernel_init=xavier_uniform,
            name="mlp",
        )(norm()(h))
        return h, h if self.return_features else None


class DiffiT(nn.Module):
    """The network around the blocks: image to tokens, blocks, tokens to prediction.

    Attributes:
        channels: Of the output.
        num_labels: Rows of the label table; 0 for none.
    """

    grid: Grid
    channels: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_labels: int
    time: TimeInput
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
        linear = partial(Linear, dtype=self.dtype, kernel_init=xavier_uniform)
        condition = embed_time_and_label(self, t, label)
        patches = image_to_patches(x, self.patch_size)
        positions = grid_positions(self.grid.rows, self.grid.cols, self.width)
        h = linear(self.width, name="patch")(patches) + positions.astype("float32")
        h = h.astype(activation_dtype(self.dtype)).reshape(-1, self.width)
        h, features = stack_blocks(
            self,
            DiffiTBlock,
            (self.grid, self.num_heads, self.mlp_ratio, return_features, self.dtype),
            name="blocks",
            length=self.depth,
            unroll=self.unroll,
            remat=self.remat,
            broadcast=True,
        )(h, condition)
        if return_features:
            return stacked(features).reshape(self.depth, len(x), -1, self.width)

        h = nn.silu(LayerNorm(epsilon=1e-6, affine=False)(h))
        zeros = nn.initializers.zeros
        pixels = Linear(
            self.patch_size**2 * self.channels,
            self.dtype,
            kernel_init=zeros,
            name="to_pixels",
        )(h)
        pixels = pixels.reshape(*patches.shape[:2], -1).astype(jnp.float32)
        rows, cols = x.shape[1:3]
        return patches_to_image(pixels, (rows, cols), self.patch_size)
