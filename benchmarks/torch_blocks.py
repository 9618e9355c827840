"""The blocks of DiG (with PyTorch Geometric's SAGEConv), U-ViT and DiT in torch.

Each loads the parameters of ours, and maps [batch * node, width] as ours does.
"""

# pyright: reportMissingImports=false
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from dig_jax.graphs import GridGraph


def batched_edges(graph: GridGraph, batch: int) -> Tensor:
    """The edges of `batch` copies of a graph, as PyTorch Geometric batches graphs."""
    edges = torch.tensor(np.stack([graph.graph.senders, graph.graph.receivers])).long()
    offsets = torch.arange(batch) * graph.num_nodes
    return (edges[:, None] + offsets[None, :, None]).reshape(2, -1)


class Hops(nn.Module):
    """GraphSAGE layers with GELU."""

    def __init__(self, width: int, hops: int, graph: GridGraph, batch: int):
        super().__init__()
        self.convs = nn.ModuleList(
            SAGEConv(width, width, bias=False) for _ in range(hops)
        )
        self.edges: Tensor
        self.register_buffer("edges", batched_edges(graph, batch), persistent=False)

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        for conv in self.convs:
            h = F.gelu(conv(h, self.edges))
        return h

    def load(self, params: dict) -> None:
        """Take the parameters of ours."""
        for k, conv in enumerate(self.convs):
            own, neighbours = params[f"hop_{k}"]["kernel"].chunk(2, dim=1)
            conv.lin_r.weight.data, conv.lin_l.weight.data = own.T, neighbours.T


class Residual(nn.Module):
    """The norms and the MLP that all blocks have."""

    def __init__(self, width: int, ratio: float):
        super().__init__()
        hidden = round(width * ratio)
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand, self.project = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def mlp(self, h: Tensor) -> Tensor:
        """MLP(Norm(h))."""
        return self.project(F.gelu(self.expand(self.mlp_norm(h))))

    def load(self, params: dict) -> None:
        """Take the parameters of ours."""
        for name, layer in (("norm", self.norm), ("mlp_norm", self.mlp_norm)):
            layer.weight.data, layer.bias.data = (
                params[name][key] for key in ("scale", "bias")
            )
        for name, layer in (("expand", self.expand), ("project", self.project)):
            load_linear(layer, params["mlp"][name])


def load_linear(layer: nn.Linear, params: dict) -> None:
    """Take the parameters of ours."""
    layer.weight.data = params["kernel"].T
    if "bias" in params:
        layer.bias.data = params["bias"]


class Parallel(Residual):
    """DiG-parallel's block for two or more scales, coarser graphs as plain grids."""

    def __init__(self, width: int, hops: int, ratio: float, graph: GridGraph, batch):
        super().__init__(width, ratio)
        self.graph, self.batch = graph, batch
        graphs = [graph.at_scale(i) for i in range(len(graph.scales))]
        self.hops = nn.ModuleList(Hops(width, hops, g, batch) for g in graphs)
        self.fuse = nn.Linear(width * len(graphs), width)

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        finest = self.norm(h)
        parts = [self.hops[0](finest)]
        for i in range(1, len(self.graph.scales)):
            parts.append(self.unpool(self.hops[i](self.pool(finest, i)), i))
        return h + self.mlp(self.fuse(torch.cat(parts, dim=1)))

    def pool(self, h: Tensor, index: int) -> Tensor:
        """Means over what a coarser patch covers; hubs are kept."""
        f, scale = self.graph.factor(0, index), self.graph.scales[index]
        patches, hubs = self.split(h, self.graph.scales[0].num_nodes)
        blocks = patches.reshape(self.batch, scale.rows, f, scale.cols, f, -1)
        return self.join(blocks.mean((2, 4)), hubs)

    def unpool(self, h: Tensor, index: int) -> Tensor:
        """Copies to what a coarser patch covers."""
        f, scale = self.graph.factor(0, index), self.graph.scales[index]
        patches, hubs = self.split(h, scale.num_nodes)
        grid = patches.reshape(self.batch, scale.rows, 1, scale.cols, 1, -1)
        return self.join(grid.expand(-1, -1, f, -1, f, -1), hubs)

    def split(self, h: Tensor, patches: int) -> tuple[Tensor, Tensor]:
        """Patches and hubs of each image."""
        per_image = h.reshape(self.batch, -1, h.shape[-1])
        return per_image[:, :patches], per_image[:, patches:]

    def join(self, grid: Tensor, hubs: Tensor) -> Tensor:
        """Patches and hubs as rows."""
        patches = grid.reshape(self.batch, -1, hubs.shape[-1])
        return torch.cat([patches, hubs], dim=1).flatten(0, 1)

    def load(self, params: dict) -> None:  # noqa: D102
        super().load(params)
        sizes = self.graph.patch_sizes
        for size, hops in zip(sizes, self.hops, strict=True):
            hops.load(params[f"hops_{size}"])
        kernels = [params[f"fuse_{size}"]["kernel"] for size in sizes]
        load_linear(
            self.fuse, {"kernel": torch.cat(kernels), "bias": params["fuse_bias"]}
        )


class Mix(Residual):
    """DiG-mix's block."""

    def __init__(self, width: int, hops: int, ratio: float, graph: GridGraph, batch):
        super().__init__(width, ratio)
        self.hops = Hops(width, hops, graph, batch)

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        h = self.norm(h)
        h = h + self.hops(h)
        return h + self.mlp(h)

    def load(self, params: dict) -> None:  # noqa: D102
        super().load(params)
        self.hops.load(params["hops"])


def attend(qkv: Tensor, batch: int, heads: int) -> Tensor:
    """Attention of rows [batch * token, 3 * width] to each other, image by image."""
    rows, width = len(qkv), qkv.shape[1] // 3
    parts = qkv.reshape(batch, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*parts)
    return mixed.transpose(1, 2).reshape(rows, width)


class Transformer(Residual):
    """U-ViT's block."""

    def __init__(self, width: int, heads: int, ratio: float, batch: int):
        super().__init__(width, ratio)
        self.heads, self.batch = heads, batch
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        h = h + self.out(attend(self.qkv(self.norm(h)), self.batch, self.heads))
        return h + self.mlp(h)

    def load(self, params: dict) -> None:  # noqa: D102
        super().load(params)
        load_linear(self.qkv, params["attention"]["qkv"])
        load_linear(self.out, params["attention"]["project"])


class AdaptiveTransformer(nn.Module):
    """DiT's block: shifts, scales and gates from a condition of each image."""

    def __init__(self, width: int, heads: int, ratio: float, condition: Tensor):
        super().__init__()
        hidden = round(width * ratio)
        self.heads, self.condition = heads, condition
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.project = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        batch = len(self.condition)
        parts = self.modulation(F.silu(self.condition))[:, None].chunk(6, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts

        def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
            normed = self.norm(h).reshape(batch, -1, h.shape[1])
            return (normed * (1 + scale) + shift).reshape(h.shape)

        def gated(gate: Tensor, update: Tensor) -> Tensor:
            per_image = update.reshape(batch, -1, update.shape[1])
            return (gate * per_image).reshape(update.shape)

        update = self.out(
            attend(self.qkv(modulated(h, shift, scale)), batch, self.heads)
        )
        h = h + gated(gate, update)
        hidden = self.expand(modulated(h, mlp_shift, mlp_scale))
        update = self.project(F.gelu(hidden, approximate="tanh"))
        return h + gated(mlp_gate, update)

    def load(self, params: dict) -> None:
        """Take the parameters of ours."""
        params = params["block"]
        load_linear(self.modulation, params["modulation"])
        load_linear(self.qkv, params["attention"]["qkv"])
        load_linear(self.out, params["attention"]["project"])
        load_linear(self.expand, params["mlp"]["expand"])
        load_linear(self.project, params["mlp"]["project"])
