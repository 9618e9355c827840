"""The KL-f8 autoencoder's state dicts: LDM's naming, and diffusers' (old and new)."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import jax

from dig_jax.errors import InputError
from dig_jax.interfaces import Params
from dig_jax.interop.tensors import (
    CONV,
    LINEAR,
    LINEAR_1X1,
    SAME,
    StateDict,
    Tensor,
    to_params,
)
from dig_jax.models.autoencoder import (
    Autoencoder,
    AutoencoderOptions,
    create_autoencoder,
)
from dig_jax.storage.fingerprint import named_leaves

Naming: TypeAlias = Literal["ldm", "diffusers", "diffusers_old"]
NAMINGS: tuple[Naming, ...] = get_args(Naming)

IN_BLOCK = {
    "norm_1": "norm1",
    "norm_2": "norm2",
    "conv_1": "conv1",
    "conv_2": "conv2",
}
SHORTCUT = {"ldm": "nin_shortcut", "diffusers": "conv_shortcut"}
ATTENTION = {
    "ldm": {"norm": "norm", "q": "q", "k": "k", "v": "v", "out": "proj_out"},
    "diffusers": {
        "norm": "group_norm",
        "q": "to_q",
        "k": "to_k",
        "v": "to_v",
        "out": "to_out.0",
    },
    "diffusers_old": {
        "norm": "group_norm",
        "q": "query",
        "k": "key",
        "v": "value",
        "out": "proj_attn",
    },
}


def tensors_of(leaves: Mapping[str, Any], naming: Naming) -> list[Tensor]:
    """A `Tensor` for each tensor of the autoencoder whose leaves these are."""
    levels = 1 + max(
        int(found.group(1))
        for name in leaves
        if (found := re.search(r"level_(\d+)", name))
    )
    return [_tensor(path, naming, levels) for path in leaves]


def read_autoencoder(state: StateDict, origin: str) -> tuple[Autoencoder, Params]:
    """An autoencoder and its parameters, of the size and naming that the tensors have.

    Raises:
        InputError: They are no autoencoder's, or not all of one's.
    """
    naming = naming_of(state, origin)
    autoencoder = create_autoencoder(_options_of(state, naming, origin))
    abstract = jax.eval_shape(autoencoder.init, jax.random.key(0))
    tensors = tensors_of(named_leaves(abstract), naming)
    return autoencoder, to_params(state, tensors, [], abstract, origin)


def naming_of(state: StateDict, origin: str) -> Naming:
    """Whose names the tensors have.

    Raises:
        InputError: Nobody's that is known.
    """
    for naming in NAMINGS:
        if f"encoder.{_of_attention(naming, 'q')}.weight" in state:
            return naming
    raise InputError(
        f"{origin} does not hold the autoencoder of latent diffusion in any of the "
        f"namings {', '.join(NAMINGS)}: it has {', '.join(list(state)[:3])} ..."
    )


def _options_of(state: StateDict, naming: Naming, origin: str) -> AutoencoderOptions:
    """The size that the shapes tell; the number of groups is always 32."""
    block = (
        "encoder.down.{}.block.{}"
        if naming == "ldm"
        else ("encoder.down_blocks.{}.resnets.{}")
    )
    widths, blocks = [], 0
    while (name := f"{block.format(len(widths), 0)}.conv1.weight") in state:
        widths.append(state[name].shape[0])
    while f"{block.format(0, blocks)}.conv1.weight" in state:
        blocks += 1
    try:
        return AutoencoderOptions(
            widths=tuple(widths),
            blocks=blocks,
            latent_channels=state["post_quant_conv.weight"].shape[0],
            image_channels=state["encoder.conv_in.weight"].shape[1],
        )
    except KeyError as error:
        raise InputError(
            f"{origin} is no whole autoencoder: {error} is missing."
        ) from (error)


def _tensor(path: str, naming: Naming, levels: int) -> Tensor:
    half, *modules, leaf = path.split("/")
    name = _module(half, modules, naming, levels)
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    layout = SAME
    if leaf == "kernel":
        layout = CONV
        if "attention" in modules:
            layout = LINEAR_1X1 if naming == "ldm" else LINEAR
    return Tensor(f"{name}.{kinds[leaf]}", path, layout)


def _module(half: str, modules: list[str], naming: Naming, levels: int) -> str:
    """The name of a module in the encoder or the decoder."""
    ldm = naming == "ldm"
    first, *rest = modules
    if first in ("quant", "post_quant"):
        return f"{first}_conv"
    if first in ("conv_in", "conv_out"):
        return f"{half}.{first}"
    if first == "norm":
        return f"{half}.{'norm_out' if ldm else 'conv_norm_out'}"
    if first == "middle":
        part, inner = rest
        if part == "attention":
            return f"{half}.{_of_attention(naming, inner)}"
        index = int(part.removeprefix("block_"))
        block = f"mid.block_{index}" if ldm else f"mid_block.resnets.{index - 1}"
        return f"{half}.{block}.{_in_block(inner, naming)}"
    way = "down" if half == "encoder" else "up"
    numbers = [int(number) for number in re.findall(r"\d+", first)]
    level = numbers[0] if ldm or way == "down" else levels - 1 - numbers[0]
    stage = f"{half}.{way}.{level}" if ldm else f"{half}.{way}_blocks.{level}"
    if first.startswith("level_"):
        block = f"block.{numbers[1]}" if ldm else f"resnets.{numbers[1]}"
        return f"{stage}.{block}.{_in_block(rest[0], naming)}"
    return f"{stage}.{way}sample.conv" if ldm else f"{stage}.{way}samplers.0.conv"


def _in_block(module: str, naming: Naming) -> str:
    if module == "shortcut":
        return SHORTCUT["ldm" if naming == "ldm" else "diffusers"]
    return IN_BLOCK[module]


def _of_attention(naming: Naming, module: str) -> str:
    place = "mid.attn_1" if naming == "ldm" else "mid_block.attentions.0"
    return f"{place}.{ATTENTION[naming][module]}"
