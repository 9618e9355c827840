"""The multiscale grid of image patches with hub nodes (DiG, Sec. 3 and App. A)."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import jax
import jraph
import numpy as np
from jaxtyping import Float, Int, Shaped

from dig_jax.errors import InputError
from dig_jax.graphs.graph import Graph
from dig_jax.graphs.patches import check_patch_sizes

HUB_NAMES = ("time", "context")
HUB_WORDS = {"context": "class"}
"""Names of the paper that people are told in other words."""

Nodes = TypeVar("Nodes", np.ndarray, jax.Array)


@dataclass(frozen=True)
class Scale:
    """The patches of one size: a rows x cols grid of nodes from node `start` on."""

    patch_size: int
    rows: int
    cols: int
    start: int

    @property
    def num_nodes(self) -> int:
        """Number of patches."""
        return self.rows * self.cols

    @property
    def nodes(self) -> slice:
        """Where the patches stand among the nodes, row by row."""
        return slice(self.start, self.start + self.num_nodes)

    def as_grid(self, nodes: Nodes) -> Nodes:
        """Of features [..., node, width] its own, as [..., row, col, width]."""
        *batch, _, width = nodes.shape
        return nodes[..., self.nodes, :].reshape(*batch, self.rows, self.cols, width)


@dataclass(frozen=True)
class Stencil:
    """Weights of the edges that arrive at a patch, the same for every patch of a scale.

    Attributes:
        centre: From the patch itself.
        side: From each of the four patches that share a side.
        corner: From each of the four patches that share a corner alone.
        hub: From each hub, and to it.
    """

    centre: float = 0.0
    side: float = 1.0
    corner: float = 0.0
    hub: float = 1.0

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Steps (row, col) from a patch to those that send to it."""
        weights = (self.centre, self.side, self.corner)
        return [
            (row, col)
            for row in (-1, 0, 1)
            for col in (-1, 0, 1)
            if weights[abs(row) + abs(col)] != 0
        ]


@dataclass(frozen=True)
class GridGraph:
    """Patches of an image at one or more scales, joined in grids and to hub nodes.

    The nodes are the patches of each scale, finest first and row by row, then the hubs
    (time, and context when there are two, or others by name), then padding. Patches are
    joined to their grid neighbours; where `across` is set also to every patch of
    another scale that covers them or that they cover; hubs are joined both ways to
    every patch, not to each other. Made by `GridGraph.create`.
    """

    image_size: tuple[int, int]
    scales: tuple[Scale, ...]
    stencils: tuple[Stencil, ...]
    num_hubs: int
    across: bool
    node_multiple: int = 1
    coarse: str = "product"
    hub_names: tuple[str, ...] = HUB_NAMES

    @classmethod
    def create(
        cls,
        image_size: int | tuple[int, int],
        patch_sizes: tuple[int, ...],
        *,
        num_hubs: int = 2,
        neighbors: int = 4,
        across: bool = True,
        node_multiple: int = 1,
        coarse: str = "product",
        hub_names: tuple[str, ...] = HUB_NAMES,
    ) -> "GridGraph":
        """The graph of an image.

        Args:
            image_size: Side, or (rows, cols), in pixels.
            patch_sizes: Sides of the patches in pixels, ascending, each a multiple of
                the one before and a divisor of the image.
            num_hubs: How many of those names: 0, 1 (time) or 2 (time and context).
            neighbors: 4 (patches that share a side) or 8 (or a corner).
            across: Join the patches of different scales (DiG-mix).
            node_multiple: Nodes and edges are padded to a multiple of this.
            coarse: Edges of a coarser scale's own graph (`at_scale`): product (C A C^T)
                or grid (weights 1).
            hub_names: What the hubs stand for.

        Raises:
            InputError: A size that does not fit, with what would.
        """
        rows, cols = (
            (image_size, image_size) if isinstance(image_size, int) else image_size
        )
        check_patch_sizes((rows, cols), patch_sizes)
        if neighbors not in (4, 8):
            raise InputError(f"neighbors must be 4 or 8, got {neighbors}.")
        if num_hubs not in range(len(hub_names) + 1):
            counts = ", ".join(map(str, range(len(hub_names))))
            raise InputError(
                f"num_hubs must be {counts} or {len(hub_names)}, got {num_hubs}."
            )
        if node_multiple < 1:
            raise InputError(f"node_multiple must be at least 1, got {node_multiple}.")
        if coarse not in ("product", "grid"):
            raise InputError(f"coarse must be product or grid, got {coarse!r}.")
        scales, start = [], 0
        for size in patch_sizes:
            scales.append(Scale(size, rows // size, cols // size, start))
            start += scales[-1].num_nodes
        stencil = Stencil(corner=1.0 if neighbors == 8 else 0.0)
        return cls(
            image_size=(rows, cols),
            scales=tuple(scales),
            stencils=(stencil,) * len(scales),
            num_hubs=num_hubs,
            across=across and len(scales) > 1,
            node_multiple=node_multiple,
            coarse=coarse,
            hub_names=hub_names[:num_hubs],
        )

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """Side of the patches of each scale, in pixels."""
        return tuple(scale.patch_size for scale in self.scales)

    @property
    def num_patches(self) -> int:
        """Number of patch nodes over all scales."""
        return sum(scale.num_nodes for scale in self.scales)

    @property
    def num_nodes(self) -> int:
        """Number of patch and hub nodes."""
        return self.num_patches + self.num_hubs

    @property
    def num_padded_nodes(self) -> int:
        """Number of nodes with padding: the node axis of every feature array."""
        return self.graph.num_padded_nodes

    @property
    def hubs(self) -> slice:
        """Where the hubs stand among the nodes."""
        return slice(self.num_patches, self.num_nodes)

    @property
    def hub_words(self) -> list[str]:
        """What the hubs stand for, as people are told it."""
        return [HUB_WORDS.get(name, name) for name in self.hub_names[: self.num_hubs]]

    def grid(self, scale: int) -> Int[np.ndarray, "row col"]:
        """Node of each patch of a scale."""
        s = self.scales[scale]
        return np.arange(s.start, s.start + s.num_nodes).reshape(s.rows, s.cols)

    def factor(self, fine: int, coarse: int) -> int:
        """How many patches of the finer scale lie along the side of a coarser one."""
        return self.scales[coarse].patch_size // self.scales[fine].patch_size

    def covering(self, fine: int, coarse: int) -> Int[np.ndarray, "row col"]:
        """For each patch of the finer scale, the node that covers it in the coarser."""
        factor = self.factor(fine, coarse)
        return self.grid(coarse).repeat(factor, 0).repeat(factor, 1)

    @cached_property
    def edges_by_kind(self) -> dict[str, Int[np.ndarray, "2 edge"]]:
        """Edges (sender, receiver): `grid{s}` in a scale, `across{s}-{r}`, `hubs`."""
        kinds = {}
        for i, (scale, stencil) in enumerate(
            zip(self.scales, self.stencils, strict=True)
        ):
            kinds[f"grid{scale.patch_size}"] = np.concatenate(
                [shift_pairs(self.grid(i), row, col) for row, col in stencil.offsets],
                axis=1,
            )
        if self.across:
            for i, fine in enumerate(self.scales):
                for j in range(i + 1, len(self.scales)):
                    pairs = np.stack(
                        [self.grid(i).ravel(), self.covering(i, j).ravel()]
                    )
                    kinds[f"across{fine.patch_size}-{self.scales[j].patch_size}"] = (
                        np.concatenate([pairs, pairs[::-1]], axis=1)
                    )
        if self.num_hubs:
            patches = np.arange(self.num_patches)
            hubs = np.arange(self.hubs.start, self.hubs.stop)
            pairs = np.stack([a.ravel() for a in np.meshgrid(patches, hubs)])
            kinds["hubs"] = np.concatenate([pairs, pairs[::-1]], axis=1)
        return kinds

    @cached_property
    def graph(self) -> Graph:
        """The edge list, padded."""
        senders, receivers = np.concatenate(list(self.edges_by_kind.values()), axis=1)
        unpadded = Graph.create(
            senders,
            receivers,
            self._edge_weights(senders, receivers),
            num_nodes=self.num_nodes,
        )
        return unpadded.padded(self.node_multiple)

    def _edge_weights(
        self, senders: Int[np.ndarray, "edge"], receivers: Int[np.ndarray, "edge"]
    ) -> Float[np.ndarray, "edge"]:
        """Weight of each edge: the stencil of its scale; 1 between scales."""
        scale_of = np.full(self.num_nodes, -1)
        row_of, col_of = (np.zeros(self.num_nodes, int) for _ in range(2))
        for i, scale in enumerate(self.scales):
            scale_of[scale.nodes] = i
            row_of[scale.nodes], col_of[scale.nodes] = (
                axis.ravel() for axis in np.indices((scale.rows, scale.cols))
            )
        weights = np.ones(len(senders))
        from_scale, to_scale = scale_of[senders], scale_of[receivers]
        steps = np.abs(row_of[senders] - row_of[receivers]) + np.abs(
            col_of[senders] - col_of[receivers]
        )
        for i, stencil in enumerate(self.stencils):
            within = (from_scale == i) & (to_scale == i)
            by_steps = np.array([stencil.centre, stencil.side, stencil.corner])
            weights[within] = by_steps[steps[within]]
            weights[np.minimum(from_scale, to_scale) == -1] = stencil.hub
        return weights

    def pooling_mask(self, coarse: int) -> Float[np.ndarray, "coarse_node node"]:
        """The mask C of App. A.1.1 from the finest scale to a coarser one.

        Binary: 1 where a coarse patch covers a fine one, and a unit block that keeps
        the hubs. Without padding.
        """
        fine, target = self.scales[0], self.scales[coarse]
        mask = np.zeros(
            (target.num_nodes + self.num_hubs, fine.num_nodes + self.num_hubs)
        )
        covering = self.covering(0, coarse).ravel() - target.start
        mask[covering, np.arange(fine.num_nodes)] = 1
        for hub in range(self.num_hubs):
            mask[target.num_nodes + hub, fine.num_nodes + hub] = 1
        return mask

    @lru_cache(maxsize=64)  # noqa: B019 -- few, small, and asked for in every block
    def at_scale(self, index: int) -> "GridGraph":
        """The graph of DiG-parallel at one scale.

        For the finest it is the grid with its hubs. For a coarser one with
        `coarse="grid"` too; else the weighted graph C A C^T (Eq. 3), in closed form:
        with f fine patches along a coarse side, f fine edges cross a side (and 2(f-1)
        diagonal ones), 4f(f-1) (and 4(f-1)^2) stay inside a coarse patch and become its
        self-weight, and f^2 join it to a hub.
        """
        scale, stencil = self.scales[index], self.stencils[index]
        if self.coarse == "product":
            fine, f = self.stencils[0], self.factor(0, index)
            stencil = Stencil(
                centre=fine.centre * f**2
                + fine.side * 4 * f * (f - 1)
                + fine.corner * 4 * (f - 1) ** 2,
                side=fine.side * f + fine.corner * 2 * (f - 1),
                corner=fine.corner,
                hub=fine.hub * f**2,
            )
        return GridGraph(
            image_size=self.image_size,
            scales=(Scale(scale.patch_size, scale.rows, scale.cols, start=0),),
            stencils=(stencil,),
            num_hubs=self.num_hubs,
            across=False,
            node_multiple=self.node_multiple,
            coarse=self.coarse,
            hub_names=self.hub_names,
        )

    def to_graphs_tuple(
        self, nodes: Shaped[np.ndarray, "node ..."] | None = None
    ) -> jraph.GraphsTuple:
        """A `jraph.GraphsTuple`; `Graph.from_graphs_tuple` reads any of them back."""
        return self.graph.to_graphs_tuple(nodes)

    def summary(self) -> dict:
        """Counts of nodes and edges (each direction counted), in all and by kind."""
        return {
            "image_size": list(self.image_size),
            "num_nodes": self.num_nodes,
            "num_padded_nodes": self.num_padded_nodes,
            "num_edges": self.graph.num_edges,
            "num_hubs": self.num_hubs,
            "scales": [
                {
                    "patch_size": scale.patch_size,
                    "rows": scale.rows,
                    "cols": scale.cols,
                    "num_nodes": scale.num_nodes,
                    "num_edges": self.edges_by_kind[f"grid{scale.patch_size}"].shape[1],
                }
                for scale in self.scales
            ],
            "edges": {kind: e.shape[1] for kind, e in self.edges_by_kind.items()},
        }


def shift_pairs(
    grid: Int[np.ndarray, "row col"], row: int, col: int
) -> Int[np.ndarray, "2 edge"]:
    """(sender, receiver) for every patch and the one that lies (row, col) from it."""
    rows, cols = grid.shape
    from_row = slice(max(row, 0), rows + min(row, 0))
    from_col = slice(max(col, 0), cols + min(col, 0))
    to_row = slice(max(-row, 0), rows + min(-row, 0))
    to_col = slice(max(-col, 0), cols + min(-col, 0))
    return np.stack([grid[from_row, from_col].ravel(), grid[to_row, to_col].ravel()])
