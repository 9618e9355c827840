"""The KL-f8 autoencoder in NumPy and float64, for one image, channels last.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
"""

import numpy as np
from diffit_in_numpy import silu
from dimr_in_numpy import convolve
from uvit_in_numpy import linear


def encode(params, image, *, levels, blocks, groups):
    """Mean and log variance, in one array."""
    h = convolve(image, params["conv_in"])
    for level in range(levels):
        if level:  # zeros below and to the right alone
            kernel, bias = (
                params[f"down_{level - 1}"][name] for name in ("kernel", "bias")
            )
            padded = np.pad(h, ((0, 1), (0, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
            h = np.einsum("rcikl,klio->rco", windows[::2, ::2], kernel) + bias
        for i in range(blocks):
            h = res_block(params[f"level_{level}_block_{i}"], h, groups)
    h = middle(params["middle"], h, groups)
    h = convolve(silu(group_norm(params["norm"], h, groups)), params["conv_out"])
    return convolve(h, params["quant"])


def decode(params, z, *, levels, blocks, groups):
    """An image from a latent, which is divided by the published scale first."""
    h = convolve(convolve(z / 0.18215, params["post_quant"]), params["conv_in"])
    h = middle(params["middle"], h, groups)
    for level in reversed(range(levels)):
        for i in range(blocks + 1):
            h = res_block(params[f"level_{level}_block_{i}"], h, groups)
        if level:
            h = convolve(np.kron(h, np.ones((2, 2, 1))), params[f"up_{level}"])
    return convolve(silu(group_norm(params["norm"], h, groups)), params["conv_out"])


def middle(params, h, groups):
    h = res_block(params["block_1"], h, groups)
    h = attention(params["attention"], h, groups)
    return res_block(params["block_2"], h, groups)


def res_block(params, x, groups):
    h = convolve(silu(group_norm(params["norm_1"], x, groups)), params["conv_1"])
    h = convolve(silu(group_norm(params["norm_2"], h, groups)), params["conv_2"])
    return h + (convolve(x, params["shortcut"]) if "shortcut" in params else x)


def attention(params, x, groups):
    h = group_norm(params["norm"], x, groups).reshape(-1, x.shape[-1])
    q, k, v = (linear(params[name], h) for name in ("q", "k", "v"))
    logits = q @ k.T / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ v
    return x + linear(params["out"], out).reshape(x.shape)


def group_norm(params, x, groups):
    parts = x.reshape(*x.shape[:2], groups, -1)
    mean = parts.mean((0, 1, 3), keepdims=True)
    variance = parts.var((0, 1, 3), keepdims=True)
    normed = (parts - mean) / np.sqrt(variance + 1e-6)
    return normed.reshape(x.shape) * params["scale"] + params["bias"]
