"""DiCo in NumPy and float64, as its authors' code has it, for one image.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
The image is channels last.
"""

import numpy as np
from dimr_in_numpy import around, convolve, depthwise
from dit_in_numpy import modulate, silu
from scipy.special import expit
from uvit_in_numpy import exact_gelu, layer, layer_norm, linear, timestep_embedding


def dico(params, image, t, label, *, depths):
    """(output with all its channels, features of the first stage's blocks)."""
    c = [condition(params[f"condition_{i}"], t, label) for i in range(3)]
    features = []
    x = convolve(image, params["from_pixels"])
    for i in range(depths[0]):
        x = block(layer(params["down_0"], i), x, c[0])
        features.append(x.reshape(-1, x.shape[-1]))
    finest = x
    x = unshuffle(without_bias(x, params["shrink_0"]))
    for i in range(depths[1]):
        x = block(layer(params["down_1"], i), x, c[1])
    half = x
    x = unshuffle(without_bias(x, params["shrink_1"]))
    for i in range(depths[2]):
        x = block(layer(params["middle"], i), x, c[2])
    x = shuffle(without_bias(x, params["grow_1"]))
    x = linear(params["fuse_1"], np.concatenate([x, half], axis=-1))
    for i in range(depths[3]):
        x = block(layer(params["up_1"], i), x, c[1])
    x = shuffle(without_bias(x, params["grow_0"]))
    x = linear(params["fuse_0"], np.concatenate([x, finest], axis=-1))
    for i in range(depths[4]):
        x = block(layer(params["up_0"], i), x, c[1])
    shift, scale = np.split(linear(params["modulation"], silu(c[1])), 2)
    x = modulate(layer_norm(x, 1e-6), shift, scale)
    return convolve(x, params["to_pixels"]), np.stack(features)


def condition(params, t, label):
    c = linear(params["time_expand"], timestep_embedding(999 * t, 256))
    c = linear(params["time_project"], silu(c))
    return c if label is None else c + params["label_embedding"][label]


def block(params, x, c):
    """The convolutions' update, then the MLP's."""
    modulation = linear(params["modulation"], silu(c))
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = np.split(modulation, 6)
    y = linear(params["mix_in"], modulate(layer_norm(x, 1e-6), shift, scale))
    y = exact_gelu(depthwise(y, params["depthwise"]))
    y = y * expit(linear(params["channel_attention"], y.mean(axis=(0, 1))))
    x = x + gate * linear(params["mix_out"], y)
    y = modulate(layer_norm(x, 1e-6), mlp_shift, mlp_scale)
    hidden = exact_gelu(linear(params["mlp"]["expand"], y))
    return x + mlp_gate * linear(params["mlp"]["project"], hidden)


def without_bias(x, params):
    assert set(params) == {"kernel"}
    return around(x, params["kernel"], "rcikl,klio->rco")


def unshuffle(x):
    """Channel 4 c + 2 i + j of a square is channel c of its pixel (i, j)."""
    rows, cols, channels = x.shape
    out = np.empty((rows // 2, cols // 2, 4 * channels))
    for i in range(2):
        for j in range(2):
            out[..., 2 * i + j :: 4] = x[i::2, j::2]
    return out


def shuffle(x):
    rows, cols, channels = x.shape
    out = np.empty((2 * rows, 2 * cols, channels // 4))
    for i in range(2):
        for j in range(2):
            out[i::2, j::2] = x[..., 2 * i + j :: 4]
    return out
