"""DiG in NumPy and float64, as dense matrices, from Eq. 1-8 and App. A of the paper.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else.
One image at a time; H is [node, width].
"""

import itertools
from typing import Any

import numpy as np
from scipy.special import erf


def grid_adjacency(rows, cols, neighbors):
    """A_s: patches that share a side (4) or also a corner (8)."""
    path_rows, path_cols = (np.eye(n, k=1) + np.eye(n, k=-1) for n in (rows, cols))
    adjacency = np.kron(path_rows, np.eye(cols)) + np.kron(np.eye(rows), path_cols)
    return adjacency + (np.kron(path_rows, path_cols) if neighbors == 8 else 0)


def covering(rows, cols, factor):
    """c of App. A.1.1: which fine patches each of rows x cols coarse ones covers."""
    along_rows, along_cols = (
        np.kron(np.eye(n), np.ones((1, factor))) for n in (rows, cols)
    )
    return np.kron(along_rows, along_cols)


def with_hubs(adjacency, num_hubs):
    """[[A, a_t, a_c], [a_t^T, 0, 0], [a_c^T, 0, 0]]."""
    n = len(adjacency)
    augmented = np.ones((n + num_hubs, n + num_hubs))
    augmented[:n, :n] = adjacency
    augmented[n:, n:] = 0
    return augmented


def mean_matrix(adjacency):
    sums = adjacency.sum(1, keepdims=True)
    return adjacency / np.where(sums > 0, sums, 1)


def layer_norm(params, h):
    h = h - h.mean(-1, keepdims=True)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5)
    return h * params["scale"] + params["bias"]


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def linear(params, x):
    return x @ params["kernel"] + params.get("bias", 0)


def mlp(params, x):
    return linear(params["project"], gelu(linear(params["expand"], x)))


def gnn(params, h, adjacency, hops):
    """K hops of GraphSAGE: H <- gelu(H W_self + mean(H) W_neigh)."""
    width = h.shape[-1]
    for k in range(hops):
        w_self, w_neigh = np.split(params[f"hop_{k}"]["kernel"], [width], axis=1)
        h = gelu(h @ w_self + mean_matrix(adjacency) @ h @ w_neigh)
    return h


def parallel_block(params, h, graph, hops):
    """Eq. 2-6 on the finest graph; graph: adjacency there and masks to each scale."""
    adjacency, masks = graph
    normed = layer_norm(params["norm"], h)
    parts, kernels = [], []
    for size, mask in masks.items():
        pooled = mask @ normed / mask.sum(1, keepdims=True)
        pooled_adjacency = mask @ adjacency @ mask.T
        features = gnn(params[f"hops_{size}"], pooled, pooled_adjacency, hops)
        parts.append(mask.T @ features)
        if len(masks) > 1:
            kernels.append(params[f"fuse_{size}"]["kernel"])
    fused = np.concatenate(parts, axis=1)
    if len(masks) > 1:
        fused = fused @ np.concatenate(kernels) + params["fuse_bias"]
    return h + mlp(params["mlp"], layer_norm(params["mlp_norm"], fused))


def mix_block(params, h, graph, hops):
    """Eq. 7-8."""
    h0 = layer_norm(params["norm"], h)
    h = h0 + gnn(params["hops"], h0, graph, hops)
    return h + mlp(params["mlp"], layer_norm(params["mlp_norm"], h))


def parallel_graph(image_size, patch_sizes, neighbors, num_hubs):
    """(A of the finest scale with hubs, {patch size: C}); the finest C is I."""
    rows, cols = (side // patch_sizes[0] for side in image_size)
    masks = {}
    for size in patch_sizes:
        factor = size // patch_sizes[0]
        c = covering(rows // factor, cols // factor, factor)
        mask = np.zeros((len(c) + num_hubs, c.shape[1] + num_hubs))
        mask[: len(c), : c.shape[1]] = c
        mask[len(c) :, c.shape[1] :] = np.eye(num_hubs)
        masks[size] = mask
    return with_hubs(grid_adjacency(rows, cols, neighbors), num_hubs), masks


def mix_graph(image_size, patch_sizes, neighbors, num_hubs):
    """A of App. A.2: a grid for each scale, and each patch with those it covers."""
    sides = [tuple(side // size for side in image_size) for size in patch_sizes]
    blocks: list[list[Any]] = [[None] * len(sides) for _ in sides]
    for i, j in itertools.combinations(range(len(sides)), 2):
        rows, cols = sides[j]
        blocks[j][i] = covering(rows, cols, patch_sizes[j] // patch_sizes[i])
        blocks[i][j] = blocks[j][i].T
    for i, (rows, cols) in enumerate(sides):
        blocks[i][i] = grid_adjacency(rows, cols, neighbors)
    return with_hubs(np.block(blocks), num_hubs)


def dig(params, x, t, label, *, kind, patch_sizes, hops, neighbors, depth):
    """(prediction, features of the patch nodes after each block) for one image."""
    num_hubs = 1 if label is None else 2
    graph_of, block = {
        "dig_parallel": (parallel_graph, parallel_block),
        "dig_mix": (mix_graph, mix_block),
    }[kind]
    graph = graph_of(x.shape[:2], patch_sizes, neighbors, num_hubs)
    embedded = patch_sizes if kind == "dig_mix" else patch_sizes[:1]

    patches = [linear(params[f"patch_{s}"], cut(x, s)) for s in embedded]
    width = patches[0].shape[-1]
    hubs = [time_embedding(999 * t, width)]
    if label is not None:
        hubs.append(params["label_embedding"][label])
    h = np.concatenate([*patches, np.stack(hubs)]) + params["position"]

    stack, skips, features = params["blocks"], [], []
    for i in range(depth // 2):
        h = block(layer(stack["in_blocks"], i)["block"], h, graph, hops)
        skips.append(h)
        features.append(h)
    h = block(stack["middle_block"]["block"], h, graph, hops)
    features.append(h)
    for i in reversed(range(depth // 2)):
        out = layer(stack["out_blocks"], i)
        fuse = np.concatenate([out["fuse_h"]["kernel"], out["fuse_skip"]["kernel"]])
        h = np.concatenate([h, skips[i]], axis=1) @ fuse + out["fuse_skip"]["bias"]
        h = block(out["block"], h, graph, hops)
        features.append(h)

    num_finest = len(patches[0])
    image = to_image(params, h[:num_finest], x.shape, patch_sizes[0])
    return image, np.stack(features)[:, :-num_hubs]


def layer(params, index):
    """One layer of parameters that are stacked on a leading axis."""
    return {
        name: layer(value, index) if isinstance(value, dict) else value[index]
        for name, value in params.items()
    }


def time_embedding(t, width):
    frequencies = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    return np.concatenate([np.cos(t * frequencies), np.sin(t * frequencies)])


def cut(x, size):
    rows, cols, _ = x.shape
    return np.stack(
        [
            x[row : row + size, col : col + size].ravel()
            for row in range(0, rows, size)
            for col in range(0, cols, size)
        ]
    )


def to_image(params, h, shape, size):
    """Norm, linear to pixels, 3x3 convolution with zeros beyond the border."""
    pixels = linear(params["to_pixels"], layer_norm(params["norm"], h))
    rows, cols, rgb = shape
    image = np.zeros((rows + 2, cols + 2, rgb))
    corners = itertools.product(range(1, rows + 1, size), range(1, cols + 1, size))
    for patch, (row, col) in zip(pixels, corners, strict=True):
        image[row : row + size, col : col + size] = patch.reshape(size, size, rgb)
    kernel = params["smooth"]["kernel"]  # [row, col, in, out]
    return params["smooth"]["bias"] + sum(
        image[row : row + rows, col : col + cols] @ kernel[row, col]
        for row, col in itertools.product(range(3), repeat=2)
    )
