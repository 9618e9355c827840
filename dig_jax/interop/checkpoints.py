"""Which state dicts are known, and from one of them to our parameters and back."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dig_jax.errors import InputError
from dig_jax.interfaces import Backbone, Params
from dig_jax.interop.dimr import tensors_of as dimr_tensors
from dig_jax.interop.tensors import (
    Fixed,
    StateDict,
    Tensor,
    to_params,
    to_state_dict,
)
from dig_jax.interop.transformers import (
    diffit_fixed,
    dit_fixed,
    dit_tensors,
    uvit_tensors,
)
from dig_jax.storage.fingerprint import named_leaves

Leaves = Mapping[str, Any]
ImageShape = tuple[int, int, int]
LAST_LAYER = "final_layer.linear"
"""Of a DiT or DiffiT: its rows are pixels of a patch, then channels."""


class Kind(NamedTuple):
    """A network whose published weights are known.

    Attributes:
        title: Its name.
        signature: A tensor that only its state dict has.
        tensors: Where its tensors lie among our leaves.
        fixed: What its state dict holds though it can be computed.
    """

    title: str
    signature: str
    tensors: Callable[[Leaves, ImageShape], list[Tensor]]
    fixed: Callable[[Leaves, ImageShape], list[Fixed]]


def _patch_size(leaves: Leaves, shape: ImageShape) -> int:
    return math.isqrt(leaves["patch/kernel"].shape[0] // shape[2])


def _grid(leaves: Leaves, shape: ImageShape) -> tuple[int, int]:
    size = _patch_size(leaves, shape)
    return shape[0] // size, shape[1] // size


def _window(leaves: Leaves, shape: ImageShape) -> tuple[int, int]:
    """The whole grid, or a square of as many offsets as there are biases."""
    rows, cols = _grid(leaves, shape)
    offsets = leaves["blocks/attention/position_bias"].shape[1]
    if offsets == (2 * rows - 1) * (2 * cols - 1):
        return rows, cols
    side = (math.isqrt(offsets) + 1) // 2
    return side, side


def _of_dit(leaves: Leaves, shape: ImageShape) -> list[Tensor]:
    return dit_tensors(leaves, _patch_size(leaves, shape))


def _fixed_of_dit(leaves: Leaves, shape: ImageShape) -> list[Fixed]:
    return dit_fixed(_grid(leaves, shape), leaves["patch/kernel"].shape[1])


def _fixed_of_diffit(leaves: Leaves, shape: ImageShape) -> list[Fixed]:
    depth, width, _ = leaves["blocks/attention/project/kernel"].shape
    return diffit_fixed(_grid(leaves, shape), _window(leaves, shape), width, depth)


KINDS: dict[str, Kind] = {
    "dimr": Kind(
        "DiMR",
        "stages.0.input_layer.1.weight",
        lambda leaves, _: dimr_tensors(leaves),
        lambda *_: [],
    ),
    "diffit": Kind(
        "DiffiT", "blocks.0.attn.qkv_temb.weight", _of_dit, _fixed_of_diffit
    ),
    "uvit": Kind(
        "U-ViT",
        "in_blocks.0.norm1.weight",
        lambda leaves, shape: uvit_tensors(leaves, _patch_size(leaves, shape)),
        lambda *_: [],
    ),
    "dit": Kind("DiT", "blocks.0.adaLN_modulation.1.weight", _of_dit, _fixed_of_dit),
}
"""By the name of our backbone."""

AUTOENCODER_SIGNATURE = "encoder.conv_in.weight"


def backbone_params(
    name: str,
    backbone: Backbone,
    state: StateDict,
    origin: str,
    *,
    drop_variance: bool = False,
) -> Params:
    """The parameters of a backbone from its published state dict.

    Args:
        name: Entry of BACKBONES.
        backbone: The network.
        state: Tensors by their official names.
        origin: Where they are from, for messages.
        drop_variance: Leave out the learned variance of a DiT or DiffiT.

    Raises:
        InputError: They are of another network, size or naming.
    """
    kind = _kind_of_backbone(name)
    _check_kind(kind, state, origin)
    abstract = jax.eval_shape(backbone.init, jax.random.key(0))
    leaves = named_leaves(abstract)
    if drop_variance:
        state = _without_variance(state, backbone.image_shape[2], origin)
    elif _has_variance(state, leaves):
        raise InputError(
            f"{origin} predicts a variance beside each channel; the {kind.title} of "
            f"the configuration does not: set backbone.learned_variance=True, or "
            f"leave the variance out with --drop_variance."
        )
    tensors = kind.tensors(leaves, backbone.image_shape)
    fixed = kind.fixed(leaves, backbone.image_shape)
    return to_params(state, tensors, fixed, abstract, origin)


def official_state_dict(
    name: str, backbone: Backbone, params: Params
) -> dict[str, np.ndarray]:
    """Our parameters in the official naming: undo `backbone_params`.

    Raises:
        InputError: There is no official naming of this network.
    """
    kind, leaves = _kind_of_backbone(name), named_leaves(params)
    if name == "dimr" and any("/mlp/expand/" in path for path in leaves):
        raise InputError(
            "DiMR's official code has no plain MLP: there are no names for a network "
            "with backbone.mlp=plain."
        )
    tensors = kind.tensors(leaves, backbone.image_shape)
    return to_state_dict(params, tensors, kind.fixed(leaves, backbone.image_shape))


def _kind_of_backbone(name: str) -> Kind:
    if name not in KINDS:
        raise InputError(
            f"There are no published weights in a naming that is known for backbone "
            f"{name!r}. Known: {', '.join(sorted(KINDS))}."
        )
    return KINDS[name]


def _check_kind(kind: Kind, state: StateDict, origin: str) -> None:
    """Raise InputError for the state dict of another known network."""
    if kind.signature in state:
        return
    others = [other.title for other in KINDS.values() if other.signature in state]
    if AUTOENCODER_SIGNATURE in state:
        others = ["autoencoder (--autoencoder converts it)"]
    if others:
        raise InputError(
            f"{origin} holds the weights of a {others[0]}, and the configuration's "
            f"backbone is a {kind.title}."
        )


def _has_variance(state: StateDict, leaves: Leaves) -> bool:
    """Whether the last layer is twice as large as ours."""
    last = state.get(f"{LAST_LAYER}.bias")
    return last is not None and len(last) == 2 * leaves["to_pixels/bias"].shape[0]


def _without_variance(state: StateDict, channels: int, origin: str) -> StateDict:
    """The state dict with the first half of the channels that the last layer makes."""
    names = [f"{LAST_LAYER}.{kind}" for kind in ("weight", "bias")]
    if any(name not in state or len(state[name]) % (2 * channels) for name in names):
        raise InputError(
            f"{origin} has no learned variance to leave out: that would be in "
            f"{LAST_LAYER}, with {2 * channels} channels of each pixel."
        )
    halves = {}
    for name in names:
        by_pixel = state[name].reshape(-1, 2 * channels, *state[name].shape[1:])
        halves[name] = by_pixel[:, :channels].reshape(-1, *state[name].shape[1:])
    return {**state, **halves}
