"""`dig_relational` in NumPy and float64, from its equations.

Independent of dig_jax: it takes the parameter tree of the Flax modules, nothing else,
and its adjacencies are written down node by node. One image at a time.
"""

from types import SimpleNamespace

import numpy as np
from dit_in_numpy import position_embedding, silu, tanh_gelu
from uvit_in_numpy import exact_gelu, layer, linear, timestep_embedding

DIRECTIONS = {  # of the patch that sends, in the order of their weights
    (-1, -1): 8,
    (-1, 0): 4,
    (-1, 1): 8,
    (0, -1): 4,
    (0, 0): 0,
    (0, 1): 4,
    (1, -1): 8,
    (1, 0): 4,
    (1, 1): 8,
}


def adjacencies(shape, sizes, neighbors, num_hubs):
    """A_r of each relation in turn, [relation, receiver, sender], means by rows."""
    grids, start = [], 0
    for size in sizes:
        rows, cols = shape[0] // size, shape[1] // size
        grids.append(start + np.arange(rows * cols).reshape(rows, cols))
        start += rows * cols
    total, matrices = start + num_hubs, []

    def relation(pairs):
        matrix = np.zeros((total, total))
        for sender, receiver in pairs:
            matrix[receiver, sender] = 1
        sums = matrix.sum(1, keepdims=True)
        matrices.append(matrix / np.maximum(sums, 1))

    for grid in grids:
        rows, cols = grid.shape
        for (dr, dc), least in DIRECTIONS.items():
            if least <= neighbors:
                relation(
                    (grid[r + dr, c + dc], grid[r, c])
                    for r in range(rows)
                    for c in range(cols)
                    if 0 <= r + dr < rows and 0 <= c + dc < cols
                )
    for i, fine in enumerate(grids):
        for coarse in grids[i + 1 :]:
            f = len(fine) // len(coarse)
            up = [
                (fine[r, c], coarse[r // f, c // f]) for r, c in np.ndindex(fine.shape)
            ]
            relation(up)
            relation((c, f) for f, c in up)
    for hub in range(start, total):
        relation((hub, patch) for patch in range(start))
        relation((patch, hub) for patch in range(start))
        relation([(hub, hub)])
    return np.stack(matrices)


DEFAULTS = {
    "depth": 2,
    "patch_sizes": (2,),
    "neighbors": 8,
    "relations": "typed",
    "channel_gate": False,
    "hubs": 0,
    "conditioning": "modulation",
    "branches": 2,
    "zero_gates": True,
    "attention_size": 0,
    "num_heads": 4,
    "outer_size": 0,
    "outer_depth": 1,
    "long_skips": False,
    "mlp": "gelu",
    "norm": "layer",
}


def relational(params, image, t, label, **given):
    """(prediction, features of the patches after each block) for one image."""
    network = Network(
        params, SimpleNamespace(**DEFAULTS | given), image.shape, t, label
    )
    return network.predict(image)


class Network:
    def __init__(self, params, options, shape, t, label):
        self.params, self.shape = params, shape
        self.options = options
        embedded = linear(params["time_expand"], timestep_embedding(999 * t, 256))
        self.told = [linear(params["time_project"], silu(embedded))]
        if label is not None:
            self.told.append(params["label_embedding"][label])
        self.condition = sum(self.told)
        self.in_graph = self.told if self.options.conditioning != "modulation" else []

    def predict(self, image):
        params, outer = self.params, self.options.outer_size
        outer = list(outer) if isinstance(outer, tuple) else [outer] * (outer > 0)
        h, features = self.level(image, image, "outer_patch", 1, outer)
        size = [*outer, self.options.patch_sizes[0]][0]
        modulation = None
        if self.options.conditioning != "hubs":
            modulation = np.split(linear(params["modulation"], silu(self.condition)), 2)
        h = norm(self.options.norm, params.get("norm"), h, modulation)
        pixels = linear(params["to_pixels"], h)
        rows, cols = (side // size for side in self.shape[:2])
        parts = pixels.reshape(rows, cols, size, size, -1)
        return parts.transpose(0, 2, 1, 3, 4).reshape(self.shape), features

    def level(self, image, grid, name, side, outer):
        """Patches of the first of the levels left, after all that is within it.

        `grid` is what they are made of by the linear layer of that name, patches of
        `side` pixels.
        """
        params = self.params
        if not outer:
            return self.within(image, grid, side)
        size, *left = outer
        suffix = f"_{len(outer)}" if left else ""
        level = Level(self, (size,), 0, attends=False)
        h = linear(params[name], cut(grid, size // side))
        h = h + self.positions(size, h.shape[-1])
        for i in range(self.options.outer_depth):
            h = level.block(layer(params["outer_in" + suffix], i), h)
        coarser = [*left, self.options.patch_sizes[0]][0]
        inside, features = self.level(
            image, self.as_image(h, size), "gather" + suffix, size, left
        )
        spread = linear(params["spread" + suffix], inside)
        factor = coarser // size
        rows, cols = (pixels // coarser for pixels in self.shape[:2])
        parts = spread.reshape(rows, cols, factor, factor, -1)
        h = h + parts.transpose(0, 2, 1, 3, 4).reshape(h.shape)
        for i in range(self.options.outer_depth):
            h = level.block(layer(params["outer_out" + suffix], i), h)
        return h, features

    def within(self, image, grid, side):
        """The finest patches after the blocks."""
        params, size, h = self.params, self.options.patch_sizes[0], []
        for s in self.options.patch_sizes:
            if s == size and self.options.outer_size:
                patches = linear(params["gather"], cut(grid, size // side))
            else:
                patches = linear(params[f"patch_{s}"], cut(image, s))
            h.append(patches + self.positions(s, patches.shape[-1]))
        h += [told[None] for told in self.in_graph]
        if self.options.hubs:
            h.append(params["registers"])
        h, features = self.blocks(np.concatenate(h))
        return h[: (self.shape[0] // size) * (self.shape[1] // size)], features

    def blocks(self, h):
        hubs = len(self.in_graph) + self.options.hubs
        level = Level(
            self,
            self.options.patch_sizes,
            hubs,
            attends=self.options.attention_size > 0,
        )
        outputs, params = [], self.params
        if not self.options.long_skips:
            for i in range(self.options.depth):
                h = level.block(layer(params["blocks"], i), h)
                outputs.append(h)
        else:
            skips = []
            for i in range(self.options.depth // 2):
                h = level.block(layer(params["in_blocks"], i), h)
                skips.append(h)
            outputs += skips
            h = level.block(layer(params["middle_block"], 0), h)
            outputs.append(h)
            for i in reversed(range(self.options.depth // 2)):
                h = level.block(layer(params["out_blocks"], i), h, skips[i])
                outputs.append(h)
        return h, np.stack(outputs)[:, : len(h) - hubs]

    def positions(self, size, width):
        return position_embedding(width, self.shape[0] // size, self.shape[1] // size)

    def as_image(self, rows, size):
        return rows.reshape(self.shape[0] // size, self.shape[1] // size, -1)


class Level:
    def __init__(self, network, sizes, hubs, attends):
        self.network, self.attends, self.size = network, attends, sizes[0]
        self.matrices = adjacencies(
            network.shape, sizes, network.options.neighbors, hubs
        )
        self.num_patches = self.matrices.shape[1] - hubs

    def block(self, params, h, skip=None):
        net = self.network
        if skip is not None:
            h = linear(params["join_skip"], skip) + h @ params["join_h"]["kernel"]
        parts = [None] * 3 * net.options.branches
        gates = [params.get("gate"), params.get("mlp_gate")]
        first = second = None
        if net.options.conditioning != "hubs":
            modulation = linear(params["modulation"], silu(net.condition))
            parts = np.split(modulation, len(parts))
            first = parts[:2]
            gates[0] = parts[2] + (not net.options.zero_gates)
            if net.options.branches == 2:
                second = parts[3:5]
                gates[1] = parts[5] + (not net.options.zero_gates)
        update = self.messages(
            params["messages"], norm(net.options.norm, params.get("norm"), h, first)
        )
        if net.options.branches == 1:
            update = norm(net.options.norm, params["mlp_norm"], update, None)
            return h + gates[0] * self.mlp(params["mlp"], update)
        h = h + gates[0] * update
        normed = norm(net.options.norm, params.get("mlp_norm"), h, second)
        return h + gates[1] * self.mlp(params["mlp"], normed)

    def messages(self, params, x):
        net = self.network
        h = linear(params["expand"], x)
        if net.options.relations == "untyped":
            others = self.matrices.copy()
            others = (others > 0).any(0) & ~np.eye(len(h), dtype=bool)
            mean = others / np.maximum(others.sum(1, keepdims=True), 1)
            h = h * params["self_weight"] + mean @ h * params["mean_weight"]
        else:
            weights = params["relations"]
            if "relation_scale" in params:
                scale = linear(params["relation_scale"], silu(net.condition))
                weights = weights * (1 + scale[:, None])
            h = sum(a @ h * w for a, w in zip(self.matrices, weights, strict=True))
        h = exact_gelu(h)
        if net.options.channel_gate:
            mean = h[: self.num_patches].mean(0)
            h = h / (1 + np.exp(-linear(params["channel_gate"], mean)))
        out = linear(params["project"], h)
        if self.attends:
            rows, cols = (side // self.size for side in net.shape[:2])
            count, f = rows * cols, net.options.attention_size // self.size
            grid = x[:count].reshape(rows // f, f, cols // f, f, -1)
            pooled = grid.mean((1, 3)).reshape(-1, x.shape[-1])
            attended = attend(params["attention"], pooled, net.options.num_heads)
            attended = attended.reshape(rows // f, 1, cols // f, 1, -1)
            full = np.broadcast_to(attended, grid.shape).reshape(count, -1)
            out[:count] += full
        return out

    def mlp(self, params, x):
        if self.network.options.mlp == "swiglu":
            gate = silu(linear(params["gate"], x))
            return linear(params["project"], gate * linear(params["expand"], x))
        return linear(params["project"], tanh_gelu(linear(params["expand"], x)))


def cut(image, size):
    """[row, col, channel] to [patch, pixel * channel], row by row in both."""
    rows, cols = image.shape[0] // size, image.shape[1] // size
    parts = image.reshape(rows, size, cols, size, -1).transpose(0, 2, 1, 3, 4)
    return parts.reshape(rows * cols, -1)


def norm(kind, params, x, modulation):
    if kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    if modulation is None:
        return x * params["scale"] + params["bias"]
    shift, scale = modulation
    return x * (1 + scale) + shift


def attend(params, x, num_heads):
    q, k, v = linear(params["qkv"], x).reshape(len(x), 3, num_heads, -1).swapaxes(0, 1)
    logits = np.einsum("qhc,khc->hqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    out = np.einsum("hqk,khc->qhc", weights, v).reshape(len(x), -1)
    return linear(params["project"], out)
