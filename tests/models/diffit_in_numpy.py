"""DiffiT in NumPy and float64, for one image: latent as its authors' code has it, and
in image space as the paper does.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
The image is channels last.
"""

import numpy as np
from dimr_in_numpy import convolve
from uvit_in_numpy import layer, layer_norm, linear, timestep_embedding


def diffit(params, image, t, label, *, patch_size, depth, num_heads, window=None):
    """(output with all its channels, features after each block)."""
    size = patch_size
    rows, cols = image.shape[0] // size, image.shape[1] // size
    x = np.stack(
        [
            image[i * size : (i + 1) * size, j * size : (j + 1) * size].ravel()
            for i in range(rows)
            for j in range(cols)
        ]
    )
    x = linear(params["patch"], x)
    x = x + sine_cosine_positions(rows, cols, x.shape[-1])
    c = condition(params, timestep_embedding(999 * t, 256), label)
    features = []
    for i in range(depth):
        x = block(layer(params["blocks"], i), x, c, (rows, cols), num_heads, window)
        features.append(x)
    x = linear(params["to_pixels"], silu(layer_norm(x, 1e-6)))
    out = np.empty((*image.shape[:2], x.shape[-1] // size**2))
    for token, pixels in enumerate(x):
        i, j = np.array(divmod(token, cols)) * size
        out[i : i + size, j : j + size] = pixels.reshape(size, size, -1)
    return out, np.stack(features)


def condition(params, waves, label):
    c = linear(params["time_project"], silu(linear(params["time_expand"], waves)))
    return c if label is None else c + params["label_embedding"][label]


def block(params, x, c, grid, num_heads, window):
    """x + TMSA(LN(x), c), then x + MLP(LN(x)); norms with or without parameters."""
    normed = layer_norm(x, 1e-6, params.get("norm"))
    x = x + attention(params["attention"], normed, c, grid, num_heads, window)
    normed = layer_norm(x, 1e-6, params.get("mlp_norm"))
    if "time" in params:
        normed = normed + linear(params["time"], c)
    hidden = tanh_gelu(linear(params["mlp"]["expand"], normed))
    return x + linear(params["mlp"]["project"], hidden)


def attention(params, x, c, grid, num_heads, window):
    """Head by head and window by window, the bias looked up pair by pair."""
    rows, cols = grid
    high, wide = (rows, cols) if window is None else (window, window)
    qkv = linear(params["qkv"], x)
    if "time_qkv" in params:
        qkv = qkv + linear(params["time_qkv"], c)
    # [q k v, head, token, channel]
    qkv = qkv.reshape(len(x), 3, num_heads, -1).transpose(1, 2, 0, 3)
    table = params.get(
        "position_bias", np.zeros(((2 * rows) * (2 * cols) * 9, num_heads))
    )
    if "time_bias" in params:
        table = table + linear(params["time_bias"], c).reshape(table.shape)
    out = np.zeros((len(x), num_heads, qkv.shape[-1]))
    for top in range(0, rows, high):
        for left in range(0, cols, wide):
            places = [(top + i, left + j) for i in range(high) for j in range(wide)]
            tokens = [i * cols + j for i, j in places]
            index = [
                [
                    (a - e + high - 1) * (2 * wide - 1) + b - f + wide - 1
                    for e, f in places
                ]
                for a, b in places
            ]
            for head in range(num_heads):
                q, k, v = qkv[:, head, tokens]
                logits = q @ k.T / np.sqrt(q.shape[-1]) + table[index, head]
                weights = np.exp(logits - logits.max(-1, keepdims=True))
                out[tokens, head] = weights / weights.sum(-1, keepdims=True) @ v
    return linear(params["project"], out.reshape(len(x), -1))


def sine_cosine_positions(rows, cols, width):
    """Half of the channels from the column, half from the row: sines, then cosines."""
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    table = np.empty((rows * cols, width))
    for token in range(rows * cols):
        row, col = divmod(token, cols)
        waves = [f(p * frequencies) for p in (col, row) for f in (np.sin, np.cos)]
        table[token] = np.concatenate(waves)
    return table


def silu(x):
    return x / (1 + np.exp(-x))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def diffit_image(
    params, image, t, label, *, depths, num_heads, window, skips="add", waves=None
):
    """(output, features of the blocks at full resolution)."""
    waves = (
        timestep_embedding(999 * t, params["from_pixels"]["bias"].size)
        if (waves is None)
        else waves(t)
    )
    c = condition(params, waves, label)
    run = {"c": c, "num_heads": num_heads, "window": window}
    x = convolve(image, params["from_pixels"])
    saved, features = [], []
    for stage, depth in enumerate(depths):
        if stage:
            x = convolve(x, params[f"down_{stage}"])[::2, ::2]
        for i in range(depth):
            x = res_block(params[f"down_{stage}_block_{i}"], x, **run)
            if stage == 0:
                features.append(x)
        saved.append(x)
    for stage in reversed(range(len(depths) - 1)):
        x = convolve(np.kron(x, np.ones((2, 2, 1))), params[f"up_{stage}"])
        for i in range(depths[stage]):
            if i == 0 and skips == "concat":
                x = np.concatenate([x, saved[stage]], axis=-1)
            x = res_block(params[f"up_{stage}_block_{i}"], x, **run)
            if i == 0 and skips == "add":
                x = x + saved[stage]
            if stage == 0:
                features.append(x)
    x = silu(group_norm(params["norm"], x, num_groups(x.shape[-1]), 1e-5))
    shape = (len(features), -1, features[0].shape[-1])
    return convolve(x, params["to_pixels"]), np.stack(features).reshape(shape)


def num_groups(channels):
    """EDM's rule."""
    return min(32, channels // 4)


def res_block(params, x, *, c, num_heads, window):
    normed = group_norm(params["norm"], x, num_groups(x.shape[-1]), 1e-5)
    h = convolve(silu(normed), params["conv"])
    tokens = h.reshape(-1, h.shape[-1])
    tokens = block(params["block"], tokens, c, h.shape[:2], num_heads, window)
    if "shortcut" in params:
        x = convolve(x, params["shortcut"])
    return x + tokens.reshape(h.shape)


def group_norm(params, x, groups, epsilon):
    normed = np.empty_like(x)
    for channels in np.split(np.arange(x.shape[-1]), groups):
        part = x[..., channels]
        normed[..., channels] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    return normed * params["scale"] + params["bias"]
