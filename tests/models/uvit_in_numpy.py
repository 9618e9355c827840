"""U-ViT in NumPy and float64, step by step as its authors' code runs it in torch.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
One image at a time, channels first; x is [token, width] in between.
"""

import numpy as np
from scipy.special import erf


def uvit(params, image, t, label, *, patch_size, depth, num_heads):
    """(prediction, features of the patch tokens after each block) for one image."""
    image = image.transpose(2, 0, 1)  # [rgb, row, col]
    rows, cols = image.shape[1:]
    x = patch_embed(params["patch"], image, patch_size)
    width = x.shape[-1]
    x = np.concatenate([timestep_embedding(999 * t, width)[None], x])
    num_extras = 1
    if label is not None:
        x = np.concatenate([params["label_embedding"][label][None], x])
        num_extras = 2
    x = x + params["position"]

    stack, skips, features = params["blocks"], [], []
    for i in range(depth // 2):
        x = block(layer(stack["in_blocks"], i)["block"], x, num_heads)
        skips.append(x)
        features.append(x)
    x = block(stack["middle_block"]["block"], x, num_heads)
    features.append(x)
    for i in reversed(range(depth // 2)):
        out = layer(stack["out_blocks"], i)
        skip_linear = {
            "kernel": np.concatenate(
                [out["fuse_h"]["kernel"], out["fuse_skip"]["kernel"]]
            ),
            "bias": out["fuse_skip"]["bias"],
        }
        x = linear(skip_linear, np.concatenate([x, skips.pop()], axis=-1))
        x = block(out["block"], x, num_heads)
        features.append(x)

    x = linear(params["to_pixels"], layer_norm(x, 1e-5, params["norm"]))
    x = unpatchify(x[num_extras:], (rows, cols), patch_size)
    weight = params["smooth"]["kernel"].transpose(3, 2, 0, 1)  # [out, in, row, col]
    x = conv2d(np.pad(x, ((0, 0), (1, 1), (1, 1))), weight, params["smooth"]["bias"])
    return x.transpose(1, 2, 0), np.stack(features)[:, num_extras:]


def block(params, x, num_heads):
    normed = layer_norm(x, 1e-5, params["norm"])
    x = x + attention(params["attention"], normed, num_heads)
    normed = layer_norm(x, 1e-5, params["mlp_norm"])
    return x + mlp(params["mlp"], normed, exact_gelu)


def attention(params, x, num_heads):
    """'L (K H D) -> K H L D', head by head."""
    qkv = linear(params["qkv"], x).reshape(len(x), 3, num_heads, -1)
    q, k, v = qkv.transpose(1, 2, 0, 3)
    heads = []
    for head in range(num_heads):
        logits = q[head] @ k[head].T / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[head])
    return linear(params["project"], np.concatenate(heads, axis=-1))


def mlp(params, x, activation):
    return linear(params["project"], activation(linear(params["expand"], x)))


def linear(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def layer_norm(x, epsilon, params=None):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x if params is None else x * params["scale"] + params["bias"]


def exact_gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def timestep_embedding(t, width):
    half = width // 2
    angles = t * np.exp(-np.log(10_000) * np.arange(half) / half)
    return np.concatenate([np.cos(angles), np.sin(angles), np.zeros(width % 2)])


def patch_embed(params, image, size):
    """A convolution whose stride is its kernel's size: [token, width]."""
    kernel = params["kernel"].reshape(size, size, len(image), -1)
    weight = kernel.transpose(3, 2, 0, 1)
    embedded = conv2d(image, weight, params["bias"], stride=size)
    return embedded.reshape(len(embedded), -1).T


def conv2d(image, weight, bias, stride=1):
    """image [in, row, col], weight [out, in, row, col]."""
    windows = np.lib.stride_tricks.sliding_window_view(
        image, weight.shape[2:], axis=(1, 2)
    )[:, ::stride, ::stride]
    return np.einsum("irckl,oikl->orc", windows, weight) + bias[:, None, None]


def unpatchify(x, image_size, size):
    """'(h w) (p1 p2 C) -> C (h p1) (w p2)'."""
    rows, cols = image_size
    x = x.reshape(rows // size, cols // size, size, size, -1)
    return np.einsum("hwpqc->chpwq", x).reshape(-1, rows, cols)


def layer(params, index):
    """One layer of parameters that are stacked on a leading axis."""
    return {
        name: layer(value, index) if isinstance(value, dict) else value[index]
        for name, value in params.items()
    }
