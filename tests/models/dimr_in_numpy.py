"""DiMR in NumPy and float64, as its authors' code has it, for one image.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
The image is channels last; x is [token, width] in between.
"""

import numpy as np
from scipy.special import expit
from uvit_in_numpy import attention, exact_gelu, layer, layer_norm, linear, mlp


def dimr(params, image, t, label, *, depths, num_heads, features_up="all", tau=None):
    """(finest estimate, features of the first branch), and by scale in `estimates`."""
    tau = 2 * t - 1 if tau is None else tau
    below, found, features = None, [], None
    for r, depth in enumerate(depths):
        size = 2 ** (len(depths) - 1 - r)
        estimate, below, of_block = branch(
            params[f"branch_{r}"],
            image,
            tau,
            label if r == 0 else None,
            below,
            size=size,
            depth=depth,
            num_heads=num_heads if r == 0 else 0,
            features_up=features_up,
        )
        found.append(estimate)
        features = of_block if r == 0 else features
    return found, features


def branch(params, image, tau, label, below, *, size, depth, num_heads, features_up):
    rows, cols = image.shape[0] // size, image.shape[1] // size
    x = np.stack(
        [
            image[i * size : (i + 1) * size, j * size : (j + 1) * size].ravel()
            for i in range(rows)
            for j in range(cols)
        ]
    )
    x = linear(params["patch"], x) + params["position"]
    if below is not None:
        x = x + upsample(params["upsample"], below, tau).reshape(rows * cols, -1)
    if label is not None:
        x = np.concatenate([params["label_embedding"][label][None], x])
    extras = len(x) - rows * cols

    stack, half = params["blocks"], depth // 2
    run = {"tau": tau, "num_heads": num_heads, "grid": (rows, cols)}
    outputs, skips = [x], []
    for i in range(half):
        x = block(layer(stack["in_blocks"], i)["block"], x, **run)
        skips.append(x)
        outputs.append(x)
    x = block(stack["middle_block"]["block"], x, **run)
    outputs.append(x)
    for i in reversed(range(half)):
        out = layer(stack["out_blocks"], i)
        both = np.concatenate([x, skips.pop()], axis=-1)
        kernel = np.concatenate([out["fuse_h"]["kernel"], out["fuse_skip"]["kernel"]])
        x = both @ kernel + out["fuse_skip"]["bias"]
        x = block(out["block"], x, **run)
        outputs.append(x)

    up = outputs if features_up == "all" else outputs[-1:]
    up = np.concatenate([one[extras:] for one in up], axis=-1)
    normed = td_layer_norm(params["norm"], x[extras:], tau).reshape(rows, cols, -1)
    estimate = convolve(normed, params["to_pixels"])
    features = np.stack([one[extras:] for one in outputs[1:]])
    return estimate, up.reshape(rows, cols, -1), features


def block(params, x, *, tau, num_heads, grid):
    if num_heads:
        normed = norm(params["norm"], x, tau)
        x = x + attention(params["attention"], normed, num_heads)
    else:
        x = x + depthwise(x.reshape(*grid, -1), params["mix"]).reshape(x.shape)
    normed = norm(params["mlp_norm"], x, tau)
    if "gate" not in params["mlp"]:
        return x + mlp(params["mlp"], normed, exact_gelu)
    gate = exact_gelu(linear(params["mlp"]["gate"], normed))
    value = linear(params["mlp"]["value"], normed)
    return x + linear(params["mlp"]["project"], gate * value)


def norm(params, x, tau):
    """The norm that the parameters are of."""
    if "shift" in params:
        return td_layer_norm(params, x, tau)
    scale = params["scale"]
    if isinstance(scale, dict):
        scale = in_time(scale, tau)
    rms = np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.shape[-1])
    return x / (rms + 1e-8) * scale


def td_layer_norm(params, x, tau):
    scale, shift = in_time(params["scale"], tau), in_time(params["shift"], tau)
    return layer_norm(x, 1e-5) * scale + shift


def in_time(params, tau):
    s = expit((1 + params["omega"]) * tau + params["beta"])
    return s * params["p0"] + (1 - s) * params["p1"]


def upsample(params, below, tau):
    """To twice the rows and columns."""
    rows, cols, _ = below.shape
    h = linear(params["expand"], td_layer_norm(params["in_norm"], below, tau))
    h = h.reshape(rows, cols, 2, 2, -1)
    fine = np.empty((2 * rows, 2 * cols, h.shape[-1]))
    for i in range(2):
        for j in range(2):
            fine[i::2, j::2] = h[:, :, i, j]
    return td_layer_norm(params["out_norm"], fine, tau)


def depthwise(x, params):
    return around(x, params["kernel"], "rcdkl,kld->rcd") + params["bias"]


def convolve(x, params):
    return around(x, params["kernel"], "rcikl,klio->rco") + params["bias"]


def around(x, kernel, sum_over):
    """Each pixel's neighborhood, [row, col, channel, kernel row, kernel col]."""
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((half, half), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, kernel.shape[:2], axis=(0, 1)
    )
    return np.einsum(sum_over, windows, kernel)
