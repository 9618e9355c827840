"""DiT in NumPy and float64, step by step as its authors' code runs it in torch.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
One image at a time, channels first; x is [token, width] in between.
"""

import numpy as np
from uvit_in_numpy import (
    attention,
    layer,
    layer_norm,
    linear,
    mlp,
    patch_embed,
    timestep_embedding,
    unpatchify,
)


def dit(params, image, t, label, *, patch_size, depth, num_heads):
    """(prediction, features of the patch tokens after each block) for one image."""
    image = image.transpose(2, 0, 1)  # [rgb, row, col]
    rows, cols = image.shape[1:]
    x = patch_embed(params["patch"], image, patch_size)
    width = x.shape[-1]
    x = x + position_embedding(width, rows // patch_size, cols // patch_size)

    c = linear(params["time_expand"], timestep_embedding(999 * t, 256))
    c = linear(params["time_project"], silu(c))
    if label is not None:
        c = c + params["label_embedding"][label]

    features = []
    for i in range(depth):
        x = dit_block(layer(params["blocks"], i), x, c, num_heads)
        features.append(x)

    shift, scale = np.split(linear(params["modulation"], silu(c)), 2)
    x = linear(params["to_pixels"], modulate(layer_norm(x, 1e-6), shift, scale))
    image = unpatchify(x, (rows, cols), patch_size)
    return image.transpose(1, 2, 0), np.stack(features)


def dit_block(params, x, c, num_heads):
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = np.split(
        linear(params["modulation"], silu(c)), 6
    )
    normed = modulate(layer_norm(x, 1e-6), shift_msa, scale_msa)
    x = x + gate_msa * attention(params["attention"], normed, num_heads)
    normed = modulate(layer_norm(x, 1e-6), shift_mlp, scale_mlp)
    return x + gate_mlp * mlp(params["mlp"], normed, tanh_gelu)


def modulate(x, shift, scale):
    return x * (1 + scale) + shift


def silu(x):
    return x / (1 + np.exp(-x))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def position_embedding(width, rows, cols):
    """The authors' meshgrid has the columns first: so has the embedding."""
    grid = np.meshgrid(np.arange(cols), np.arange(rows))
    return np.concatenate([waves(width // 2, axis.ravel()) for axis in grid], axis=1)


def waves(width, positions):
    omega = 1 / 10_000 ** (np.arange(width // 2) / (width / 2))
    angles = np.outer(positions, omega)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
