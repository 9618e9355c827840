"""State dicts of U-ViT (baofff/U-ViT), DiT (facebookresearch/DiT), DiffiT (NVIDIA)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dig_jax.interop.tensors import (
    CONV,
    LINEAR,
    ONE_BATCH,
    SAME,
    Fixed,
    Layout,
    Tensor,
    patches,
)
from dig_jax.models.dit import grid_positions

OF_LINEAR = {"kernel": "weight", "bias": "bias"}
OF_NORM = {"scale": "weight", "bias": "bias"}
MLP = {"mlp/expand": "mlp.fc1", "mlp/project": "mlp.fc2"}
DIT_OUTSIDE = {
    "patch": "x_embedder.proj",
    "time_expand": "t_embedder.mlp.0",
    "time_project": "t_embedder.mlp.2",
    "to_pixels": "final_layer.linear",
    "modulation": "final_layer.adaLN_modulation.1",
}
DIT_BLOCK = MLP | {
    "attention/qkv": "attn.qkv",
    "attention/project": "attn.proj",
    "modulation": "adaLN_modulation.1",
}
DIFFIT_BLOCK = DIT_BLOCK | {"attention/time_qkv": "attn.qkv_temb"}
UVIT_OUTSIDE = {
    "patch": "patch_embed.proj",
    "norm": "norm",
    "to_pixels": "decoder_pred",
    "smooth": "final_layer",
}
UVIT_BLOCK = MLP | {
    "norm": "norm1",
    "mlp_norm": "norm2",
    "attention/qkv": "attn.qkv",
    "attention/project": "attn.proj",
}


def dit_tensors(leaves: Mapping[str, Any], patch_size: int) -> list[Tensor]:
    """A `Tensor` for each tensor of a DiT or a DiffiT whose leaves these are."""
    found = []
    for path, leaf in leaves.items():
        if path == "label_embedding":
            found.append(Tensor("y_embedder.embedding_table.weight", path))
            continue
        module, _, kind = path.rpartition("/")
        if not path.startswith("blocks/"):
            layout = patches(patch_size) if module == "patch" else LINEAR
            layout = SAME if kind == "bias" else layout
            found.append(
                Tensor(f"{DIT_OUTSIDE[module]}.{OF_LINEAR[kind]}", path, layout)
            )
            continue
        inside = path.removeprefix("blocks/").rpartition("/")[0]
        for layer in range(leaf.shape[0]):
            if kind == "position_bias":
                name, layout = "attn.relative_position_bias_table", SAME
            else:
                name = f"{DIFFIT_BLOCK[inside]}.{OF_LINEAR[kind]}"
                layout = SAME if kind == "bias" else LINEAR
            found.append(Tensor(f"blocks.{layer}.{name}", path, layout, layer))
    return found


def dit_fixed(grid: tuple[int, int], width: int) -> list[Fixed]:
    """What a DiT's state dict holds though it can be computed: its positions."""
    positions = grid_positions(*grid, width).astype(np.float32)
    return [Fixed("pos_embed", positions[None])]


def diffit_fixed(
    grid: tuple[int, int], window: tuple[int, int], width: int, depth: int
) -> list[Fixed]:
    """What a DiffiT's holds: also the index of each pair of tokens in each block."""
    index = relative_index(window)
    of_blocks = [
        Fixed(f"blocks.{i}.attn.relative_position_index", index) for i in range(depth)
    ]
    return [*dit_fixed(grid, width), *of_blocks]


def relative_index(window: tuple[int, int]) -> np.ndarray:
    """Which row of the table of biases a pair of a window's tokens has."""
    rows, cols = window
    row, col = np.divmod(np.arange(rows * cols), cols)
    row_offset = row[:, None] - row + rows - 1
    col_offset = col[:, None] - col + cols - 1
    return row_offset * (2 * cols - 1) + col_offset


def uvit_tensors(leaves: Mapping[str, Any], patch_size: int) -> list[Tensor]:
    """A `Tensor` for each tensor of the U-ViT whose leaves these are.

    A U-ViT without its last convolution (`conv=False`) is one whose convolution leaves
    the image as it is.
    """
    found = []
    for path, leaf in leaves.items():
        if path == "label_embedding":
            found.append(Tensor("label_emb.weight", path))
        elif path == "position":
            found.append(Tensor("pos_embed", path, ONE_BATCH))
        elif path.startswith("blocks/"):
            found += _uvit_blocks(path, leaf, leaves)
        else:
            found.append(_uvit_outside(path, leaf, patch_size))
    return found


def _uvit_outside(path: str, leaf: Any, patch_size: int) -> Tensor:
    module, kind = path.split("/")
    kinds = OF_NORM if module == "norm" else OF_LINEAR
    name = f"{UVIT_OUTSIDE[module]}.{kinds[kind]}"
    default = None
    if module == "smooth":
        channels = leaf.shape[-1]
        default = np.zeros(channels, np.float32)
        if kind == "kernel":
            default = np.zeros((channels, channels, 3, 3), np.float32)
            default[:, :, 1, 1] = np.eye(channels)
    layouts = {"patch": patches(patch_size), "to_pixels": LINEAR, "smooth": CONV}
    layout = layouts[module] if kind == "kernel" else SAME
    return Tensor(name, path, layout, default=default)


def _uvit_blocks(path: str, leaf: Any, leaves: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of each layer of one leaf.

    Theirs of the second half run in the order of computing, ours the other way.
    """
    stack, _, rest = path.removeprefix("blocks/").partition("/")
    half = leaves["blocks/out_blocks/fuse_skip/bias"].shape[0]
    for layer in [None] if stack == "middle_block" else range(leaf.shape[0]):
        block = {
            "in_blocks": f"in_blocks.{layer}",
            "middle_block": "mid_block",
            "out_blocks": f"out_blocks.{half - 1 - (layer or 0)}",
        }[stack]
        module, _, kind = rest.removeprefix("block/").rpartition("/")
        if module.startswith("fuse_"):
            name = f"{block}.skip_linear.{OF_LINEAR[kind]}"
            if kind == "bias":
                yield Tensor(name, path, SAME, layer)
            else:
                part = (0, 2) if module == "fuse_h" else (1, 2)
                yield Tensor(name, path, LINEAR, layer, part)
            continue
        kinds = OF_NORM if module in ("norm", "mlp_norm") else OF_LINEAR
        layout: Layout = LINEAR if kind == "kernel" else SAME
        yield Tensor(f"{block}.{UVIT_BLOCK[module]}.{kinds[kind]}", path, layout, layer)
