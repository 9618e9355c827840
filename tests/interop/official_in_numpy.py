"""U-ViT and DiT in NumPy and float64 over state dicts in their authors' naming.

Independent of dig_jax: tensors are laid out as torch has them. One image, channels
first, t as the networks see it (999 t).
"""

import numpy as np
from scipy.special import erf


def uvit(state, image, t, label, *, patch_size, depth, num_heads):
    """baofff/U-ViT's forward."""
    x = conv(image, state, "patch_embed.proj", stride=patch_size)
    x = x.reshape(len(x), -1).T
    width = x.shape[-1]
    tokens = [state["label_emb.weight"][label], waves(t, width)]
    x = np.concatenate([tokens, x]) + state["pos_embed"][0]
    skips = []
    for i in range(depth // 2):
        x = uvit_block(state, f"in_blocks.{i}", x, num_heads)
        skips.append(x)
    x = uvit_block(state, "mid_block", x, num_heads)
    for i in range(depth // 2):
        both = np.concatenate([x, skips.pop()], axis=-1)
        x = linear(both, state, f"out_blocks.{i}.skip_linear")
        x = uvit_block(state, f"out_blocks.{i}", x, num_heads)
    x = linear(affine_norm(x, state, "norm"), state, "decoder_pred")[2:]
    x = unpatchify(x, image.shape[1:], patch_size)
    if "final_layer.weight" in state:
        x = conv(np.pad(x, ((0, 0), (1, 1), (1, 1))), state, "final_layer")
    return x


def uvit_block(state, name, x, num_heads):
    normed = affine_norm(x, state, f"{name}.norm1")
    x = x + attention(normed, state, f"{name}.attn", num_heads)
    hidden = linear(affine_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    return x + linear(hidden, state, f"{name}.mlp.fc2")


def dit(state, image, t, label, *, patch_size, depth, num_heads):
    """facebookresearch/DiT's forward, with all output channels."""
    x = conv(image, state, "x_embedder.proj", stride=patch_size)
    x = x.reshape(len(x), -1).T + state["pos_embed"][0]
    c = silu(linear(waves(t, 256), state, "t_embedder.mlp.0"))
    c = linear(c, state, "t_embedder.mlp.2")
    c = silu(c + state["y_embedder.embedding_table.weight"][label])
    for i in range(depth):
        name = f"blocks.{i}"
        shift, scale, gate, shift_2, scale_2, gate_2 = np.split(
            linear(c, state, f"{name}.adaLN_modulation.1"), 6
        )
        normed = plain_norm(x, 1e-6) * (1 + scale) + shift
        x = x + gate * attention(normed, state, f"{name}.attn", num_heads)
        normed = plain_norm(x, 1e-6) * (1 + scale_2) + shift_2
        hidden = linear(normed, state, f"{name}.mlp.fc1")
        cubic = hidden + 0.044715 * hidden**3
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * cubic))
        x = x + gate_2 * linear(hidden, state, f"{name}.mlp.fc2")
    shift, scale = np.split(linear(c, state, "final_layer.adaLN_modulation.1"), 2)
    x = plain_norm(x, 1e-6) * (1 + scale) + shift
    return unpatchify(
        linear(x, state, "final_layer.linear"), image.shape[1:], patch_size
    )


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def conv(image, state, name, stride=1):
    weight = state[f"{name}.weight"]
    windows = np.lib.stride_tricks.sliding_window_view(
        image, weight.shape[2:], axis=(1, 2)
    )[:, ::stride, ::stride]
    out = np.einsum("irckl,oikl->orc", windows, weight)
    return out + state[f"{name}.bias"][:, None, None]


def attention(x, state, name, num_heads):
    qkv = linear(x, state, f"{name}.qkv").reshape(len(x), 3, num_heads, -1)
    q, k, v = qkv.transpose(1, 2, 0, 3)
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    out = weights / weights.sum(-1, keepdims=True) @ v
    return linear(out.transpose(1, 0, 2).reshape(x.shape), state, f"{name}.proj")


def plain_norm(x, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def affine_norm(x, state, name):
    return plain_norm(x, 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def waves(t, width):
    half = width // 2
    angles = t * np.exp(-np.log(10_000) * np.arange(half) / half)
    return np.concatenate([np.cos(angles), np.sin(angles)])


def silu(x):
    return x / (1 + np.exp(-x))


def unpatchify(x, image_size, size):
    rows, cols = (side // size for side in image_size)
    x = x.reshape(rows, cols, size, size, -1)
    return np.einsum("hwpqc->chpwq", x).reshape(-1, *image_size)
