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


def gcn_matrix(adjacency):
    """D^-1/2 (A + I) D^-1/2; a node with a self-loop keeps its weight instead."""
    looped = adjacency + np.diag(np.diag(adjacency) == 0)
    root = 1 / np.sqrt(looped.sum(1))
    return root[:, None] * looped * root


def sage(params, h, adjacency):
    w_self, w_neigh = np.split(params["kernel"], 2, axis=1)
    return h @ w_self + mean_matrix(adjacency) @ h @ w_neigh


def gcn(params, h, adjacency):
    return gcn_matrix(adjacency) @ h @ params["kernel"] + params.get("bias", 0)


def gin(params, h, adjacency):
    return mlp(params["mlp"], (1 + params.get("eps", 0)) * h + adjacency @ h)


CONVOLUTIONS = {"sage": sage, "gcn": gcn, "gin": gin}


def gnn(params, h, adjacency, conv, hops):
    """K hops: H <- gelu(conv(H))."""
    for k in range(hops):
        h = gelu(CONVOLUTIONS[conv](params[f"hop_{k}"], h, adjacency))
    return h


def parallel_block(params, h, graph, conv, hops, fusion):
    """Eq. 2-6 on the finest graph; graph: adjacency and mask from it of each scale."""
    normed = layer_norm(params["norm"], h)
    parts, kernels = [], []
    for size, (adjacency, mask) in graph.items():
        pooled = mask @ normed / mask.sum(1, keepdims=True)
        parts.append(
            mask.T @ gnn(params[f"hops_{size}"], pooled, adjacency, conv, hops)
        )
        if len(graph) > 1 and fusion == "concat":
            kernels.append(params[f"fuse_{size}"]["kernel"])
    if kernels:
        fused = np.concatenate(parts, axis=1) @ np.concatenate(kernels)
        fused = fused + params["fuse_bias"]
    else:
        fused = np.sum(parts, axis=0)
    return h + mlp(params["mlp"], layer_norm(params["mlp_norm"], fused))


def mix_block(params, h, graph, conv, hops, fusion):
    """Eq. 7-8."""
    h0 = layer_norm(params["norm"], h)
    h = h0 + gnn(params["hops"], h0, graph, conv, hops)
    return h + mlp(params["mlp"], layer_norm(params["mlp_norm"], h))


def parallel_graph(sides, factors, neighbors, num_hubs, coarse):
    """A and C of each scale, with hubs: C A C^T, or the coarser grid's own A."""
    graph = {}
    rows, cols = sides[0]
    finest = with_hubs(grid_adjacency(rows, cols, neighbors), num_hubs)
    for (rows, cols), (size, factor) in zip(sides, factors.items(), strict=True):
        c = covering(rows, cols, factor)
        mask = np.zeros((len(c) + num_hubs, c.shape[1] + num_hubs))
        mask[: len(c), : c.shape[1]] = c
        mask[len(c) :, c.shape[1] :] = np.eye(num_hubs)
        adjacency = mask @ finest @ mask.T
        if coarse == "grid":
            adjacency = with_hubs(grid_adjacency(rows, cols, neighbors), num_hubs)
        graph[size] = adjacency, mask
    return graph


def mix_graph(sides, factors, neighbors, num_hubs, across):
    """A of App. A.2: a grid for each scale, and each patch with those it covers."""
    factors = list(factors.values())
    blocks: list[list[Any]] = [[None] * len(sides) for _ in sides]
    for i, j in itertools.combinations(range(len(sides)), 2):
        rows, cols = sides[j]
        blocks[j][i] = across * covering(rows, cols, factors[j] // factors[i])
        blocks[i][j] = blocks[j][i].T
    for i, (rows, cols) in enumerate(sides):
        blocks[i][i] = grid_adjacency(rows, cols, neighbors)
    return with_hubs(np.block(blocks), num_hubs)


def dig(
    params,
    x,
    t,
    label,
    *,
    kind,
    patch_sizes,
    hops,
    depth,
    neighbors=4,
    conv="sage",
    conditioning="node",
    hubs=None,
    position="1d",
    coarse="product",
    across=True,
    fusion="concat",
):
    """(prediction, features of the patch nodes after each block) for one image."""
    hubs = conditioning == "node" if hubs is None else hubs
    num_hubs = 0 if not hubs else 1 if label is None else 2
    sides = [tuple(side // size for side in x.shape[:2]) for size in patch_sizes]
    factors = {size: size // patch_sizes[0] for size in patch_sizes}
    if kind == "dig_mix":
        graph = mix_graph(sides, factors, neighbors, num_hubs, across)
    else:
        graph = parallel_graph(sides, factors, neighbors, num_hubs, coarse)
        patch_sizes, sides = patch_sizes[:1], sides[:1]

    def block(params, h):
        run = mix_block if kind == "dig_mix" else parallel_block
        return run(params, h, graph, conv, hops, fusion)

    patches = [linear(params[f"patch_{s}"], cut(x, s)) for s in patch_sizes]
    num_finest, width = patches[0].shape
    h = np.concatenate(patches)
    num_patches = len(h)
    conditions = [time_embedding(999 * t, width)]
    if label is not None:
        conditions.append(params["label_embedding"][label])
    e = positions(params, patch_sizes, sides, num_hubs, position)
    h = condition(params, h + e[:num_patches], conditions, conditioning)
    if num_hubs:
        h = np.concatenate([h, np.stack(conditions) + e[num_patches:]])

    stack, skips, features = params["blocks"], [], []
    for i in range(depth // 2):
        h = block(layer(stack["in_blocks"], i)["block"], h)
        skips.append(h)
        features.append(h)
    h = block(stack["middle_block"]["block"], h)
    features.append(h)
    for i in reversed(range(depth // 2)):
        out = layer(stack["out_blocks"], i)
        fuse = np.concatenate([out["fuse_h"]["kernel"], out["fuse_skip"]["kernel"]])
        h = np.concatenate([h, skips[i]], axis=1) @ fuse + out["fuse_skip"]["bias"]
        h = block(out["block"], h)
        features.append(h)

    image = to_image(params, h[:num_finest], x.shape, patch_sizes[0])
    return image, np.stack(features)[:, :num_patches]


def positions(params, patch_sizes, sides, num_hubs, position):
    """e: a row for each patch and hub, or a sum of one for its row and its column."""
    if position == "1d":
        return params["position"]
    rows = [
        params[f"position_row_{size}"][row] + params[f"position_col_{size}"][col]
        for size, side in zip(patch_sizes, sides, strict=True)
        for row, col in itertools.product(*map(range, side))
    ]
    return np.stack([*rows, *params["position_hubs"]] if num_hubs else rows)


def condition(params, h, conditions, conditioning):
    """Sec. 3.3: H, H + v_t + v_c, or [H, v_t, v_c] W + b."""
    if conditioning == "add":
        return h + np.sum(conditions, axis=0)
    if conditioning == "concat":
        names = ["h", "time", "context"][: 1 + len(conditions)]
        parts = [params[f"concat_{name}"] for name in names]
        kernel = np.concatenate([part["kernel"] for part in parts])
        copies = [np.tile(v, (len(h), 1)) for v in conditions]
        return np.concatenate([h, *copies], axis=1) @ kernel + parts[0]["bias"]
    return h


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
