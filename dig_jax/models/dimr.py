"""DiMR: a network of several resolutions (arXiv:2406.09416).

Each branch makes its own estimate of the noise, from the coarsest to the finest, and
hands its features to the next: Transformer blocks on the coarsest grid, ConvNeXt blocks
on the finer ones. Time is in the norms alone. docs/dimr.md says where the paper and the
authors' code differ, and which option is which.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from dig_jax.diffusion.sde import VPLinear
from dig_jax.errors import InputError
from dig_jax.graphs.patches import check_patch_sizes
from dig_jax.interfaces import Backbone
from dig_jax.models.as_backbone import as_backbone
from dig_jax.models.attention import AttentionKernel
from dig_jax.models.attention_plan import choose_attention
from dig_jax.models.dimr_branch import BlockNorm, BlockOptions, Branch, MLPKind
from dig_jax.models.time_norms import Tau
from dig_jax.ops.products import DType
from dig_jax.options.keys import Rounding, takes_fields_of

TimeInput: TypeAlias = Literal["centered", "logsnr", "t"]
LEAST_SNR, GREATEST_SNR = 1e-12, 1e6


@dataclass(frozen=True, kw_only=True)
class DiMROptions:
    """The options of `create_dimr`.

    Attributes:
        image_shape: (row, col, rgb) of the images.
        num_classes: Number of labels; 0 for an unconditional network.
        null_label: Give "no class" an embedding of its own, for guidance.
        width: Size of the tokens on the coarsest grid; each next branch has half.
        depth: Layers on the coarsest grid, each next branch having half, rounded up.
            An even number makes one block more, as in the authors' code: each stack
            has a middle block.
        branches: Number of resolutions R; the coarsest has patches of 2^(R-1) pixels.
        branch_widths: Each branch's own width, the coarsest first; () for the above.
        branch_depths: Each branch's own number of layers; () for the above.
        num_heads: Attention heads; a divisor of the coarsest branch's width.
        mlp: geglu, or the plain MLP of Table 2's rows 3 and 4.
        mlp_ratio: Hidden width over the width; None for 2 (geglu) or 4 (plain).
        kernel_size: Side of the depthwise convolutions; odd.
        norm: Of the blocks: td_rms, a time-dependent RMS norm without shift (the
            released models); td_layer, TD-LN (the paper's text, Table 2); rms, without
            time. Between branches and at the end it is TD-LN.
        features_up: What a branch hands on: the output of all its blocks and their
            input (the published sizes), or of the last block (Eq. 1).
        time: What the norms are told: 2 t - 1 (centered: the released latent models);
            log(SNR) / 4 under VP-linear noise of 0.1 to 20 (logsnr: what their code
            has for pixels); t.
        stop_gradient: Keep each branch's gradient from the ones below.
        attention: How attention is computed; no effect on the result.
        dtype: float32, mixed (bfloat16 products) or bfloat16.
        unroll: Blocks in each turn of the loop over blocks; 0 for no loop.
        remat: Recompute activations in the backward pass: less memory, more time.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_classes: NonNegativeInt = 0
    null_label: bool = False
    width: PositiveInt = 768
    depth: PositiveInt = 15
    branches: PositiveInt = 3
    branch_widths: tuple[PositiveInt, ...] = ()
    branch_depths: tuple[PositiveInt, ...] = ()
    num_heads: PositiveInt = 12
    mlp: MLPKind = "geglu"
    mlp_ratio: PositiveFloat | None = None
    kernel_size: PositiveInt = 7
    norm: BlockNorm = "td_rms"
    features_up: Literal["all", "last"] = "all"
    time: TimeInput = "centered"
    stop_gradient: bool = False
    attention: Rounding[AttentionKernel] = "auto"
    dtype: DType = "float32"
    unroll: Rounding[NonNegativeInt] = 0
    remat: Rounding[bool] = False


@takes_fields_of(DiMROptions)
def create_dimr(options: DiMROptions) -> Backbone:
    """DiMR: a Transformer on the coarsest grid, ConvNeXt branches on the finer ones.

    `Backbone.by_scale` has the estimates of all branches, `apply` that of the last.
    `features` are the Transformer's.

    Raises:
        InputError: Options that do not fit the image or each other.
    """
    check_patch_sizes(options.image_shape[:2], (2 ** (options.branches - 1),))
    if options.kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd, got {options.kernel_size}.")
    widths = options.branch_widths or _halved("width", options.width, options.branches)
    depths = options.branch_depths or tuple(
        -(-options.depth // 2 ** min(r, 1)) for r in range(options.branches)
    )
    for name, given in (("branch_widths", widths), ("branch_depths", depths)):
        if len(given) != options.branches:
            raise InputError(
                f"{name} must have one number for each of the {options.branches} "
                f"branches, got {tuple(given)}."
            )
    coarsest = math.prod(
        side // 2 ** (options.branches - 1) for side in options.image_shape[:2]
    )
    plan = choose_attention(
        options.attention,
        options.dtype,
        width=widths[0],
        num_heads=options.num_heads,
        num_tokens=coarsest + (options.num_classes > 0),
    ).unpadded()
    of_blocks = BlockOptions(
        norm=options.norm,
        mlp=options.mlp,
        mlp_ratio=options.mlp_ratio or (2.0 if options.mlp == "geglu" else 4.0),
        kernel_size=options.kernel_size,
        attention=plan,
        dtype=options.dtype,
        unroll=options.unroll,
        remat=options.remat,
    )
    network = DiMR(
        widths=tuple(widths),
        depths=tuple(depths),
        num_heads=options.num_heads,
        num_labels=options.num_classes + options.null_label,
        features_up=options.features_up,
        time=options.time,
        stop_gradient=options.stop_gradient,
        options=of_blocks,
    )
    return as_backbone(
        network,
        options.image_shape,
        options.num_classes,
        null_label=options.null_label,
        attention=str(plan),
        by_scale=True,
    )


def _halved(name: str, size: int, branches: int) -> tuple[int, ...]:
    """A size for each branch, each half of the one before."""
    if size % 2 ** (branches - 1):
        multiple = 2 ** (branches - 1)
        raise InputError(
            f"{name} must be a multiple of {multiple} for {branches} branches, each of "
            f"half the width of the one before, got {size}; "
            f"{-(-size // multiple) * multiple} would do."
        )
    return tuple(size // 2**r for r in range(branches))


def time_input(t: Float[Array, "batch"], time: TimeInput) -> Tau:
    """What the norms are told of t in [0, 1]; see `create_dimr`."""
    t = t.astype(jnp.float32)
    match time:
        case "centered":
            return 2 * t - 1
        case "t":
            return t
        case "logsnr":
            logsnr = VPLinear().logsnr(t)
            return jnp.clip(logsnr, math.log(LEAST_SNR), math.log(GREATEST_SNR)) / 4


class DiMR(nn.Module):
    """The branches, one after the other; the estimate of each, coarsest first.

    Attributes:
        widths: Of each branch, coarsest first.
        depths: Layers of each.
        num_labels: Rows of the label table; 0 for none, and then no class token.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: int
    num_labels: int
    features_up: Literal["all", "last"]
    time: TimeInput
    stop_gradient: bool
    options: BlockOptions

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch row col rgb"],
        t: Float[Array, "batch"],
        label: Int[Array, "batch"] | None,
        return_features: bool = False,
    ) -> tuple[Array, ...] | Array:
        tau = time_input(t, self.time)
        below, estimates = None, []
        for r, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            branch = Branch(
                width=width,
                depth=depth,
                patch_size=2 ** (len(self.widths) - 1 - r),
                num_heads=0 if r else self.num_heads,
                num_labels=0 if r else self.num_labels,
                features_up=self.features_up,
                options=self.options,
                name=f"branch_{r}",
            )
            estimate, up = branch(x, tau, label, below, return_features)
            if return_features:
                return estimate
            estimates.append(estimate)
            below = jax.lax.stop_gradient(up) if self.stop_gradient else up
        return tuple(estimates)
