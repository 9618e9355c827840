"""Graphs whose edges have types: each type is a relation between nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import jraph
import numpy as np
from jaxtyping import Float, Int, Shaped

from dig_jax.errors import InputError
from dig_jax.graphs.graph import Graph
from dig_jax.graphs.grid import GridGraph, shift_pairs

COMPASS = {
    (-1, -1): "north_west",
    (-1, 0): "north",
    (-1, 1): "north_east",
    (0, -1): "west",
    (0, 0): "self",
    (0, 1): "east",
    (1, -1): "south_west",
    (1, 0): "south",
    (1, 1): "south_east",
}
"""Where a patch that sends lies, by the step (row, col) to it."""


@dataclass(frozen=True, eq=False)
class RelationalGraph:
    """A static graph, and the relation that each of its edges stands for.

    Attributes:
        graph: The edges. Their weights are not used: what arrives by a relation is the
            mean over its edges.
        relation: Index of each edge's relation, padding included.
        names: Of the relations.
    """

    graph: Graph
    relation: Int[np.ndarray, "edge"]
    names: tuple[str, ...]

    @classmethod
    def create(
        cls, graph: Graph, relation: Shaped[np.ndarray, "..."], names: Sequence[str]
    ) -> "RelationalGraph":
        """The graph with a relation for each of its edges, padding included.

        Raises:
            InputError: As many relations as edges are needed, each one of the names'.
        """
        relation = np.asarray(relation)
        if relation.shape != graph.senders.shape:
            raise InputError(
                f"Each of the {len(graph.senders)} edges needs one relation, got an "
                f"array of shape {relation.shape}."
            )
        real = relation[: graph.num_edges]
        unknown = real[~np.isin(real, np.arange(len(names)))]
        if len(unknown):
            raise InputError(
                f"An edge's relation must be a whole number from 0 to "
                f"{len(names) - 1} ({', '.join(names)}), got {unknown[0]}."
            )
        return cls(graph, relation.astype(np.int32), tuple(names))

    @classmethod
    def from_graphs_tuple(
        cls,
        graphs: jraph.GraphsTuple,
        names: Sequence[str],
        *,
        num_padding_graphs: int = 0,
    ) -> "RelationalGraph":
        """The union of the graphs of a `jraph.GraphsTuple` whose edges have types.

        Args:
            graphs: `edges` are indices of relations, [edge] or [edge, 1].
            names: Of the relations.
            num_padding_graphs: How many graphs at the end are padding.

        Raises:
            InputError: Edges without types, or with one that has no name.
        """
        if graphs.edges is None:
            raise InputError(
                "The edges of the GraphsTuple must say their relations (edges [edge] "
                f"or [edge, 1], whole numbers from 0 to {len(names) - 1}), got None."
            )
        relation = np.asarray(graphs.edges)
        if relation.shape == (len(relation), 1):
            relation = relation[:, 0]
        graph = Graph.from_graphs_tuple(
            graphs._replace(edges=None), num_padding_graphs=num_padding_graphs
        )
        return cls.create(graph, relation, names)

    @classmethod
    @lru_cache(maxsize=64)  # each block of a network asks for its grid's
    def of_grid(cls, grid: GridGraph) -> "RelationalGraph":
        """A grid's edges, and an edge from each node to itself, by what they mean.

        Within a scale the direction that a message comes from (`north2`: from the patch
        above, among those of 2 pixels; `self2`), between scales `up2_4` (from the
        patches that one covers) and `down4_2` (from the one that covers it), and for
        each hub `from_NAME`, `to_NAME` and `self_NAME`.
        """
        edges = _edges_by_relation(grid)
        senders, receivers = np.concatenate(list(edges.values()), axis=1)
        relation = np.repeat(
            np.arange(len(edges)), [e.shape[1] for e in edges.values()]
        )
        graph = Graph.create(senders, receivers, num_nodes=grid.num_nodes)
        graph = graph.padded(grid.node_multiple)
        padding = len(graph.senders) - graph.num_edges
        return cls.create(graph, np.pad(relation, (0, padding)), list(edges))

    @property
    def num_relations(self) -> int:
        """How many relations have names."""
        return len(self.names)

    @cached_property
    def weights(self) -> Float[np.ndarray, "edge"]:
        """1 / the number of a receiver's edges of that relation; 0 for padding."""
        place = self.graph.receivers * self.num_relations + self.relation
        size = self.graph.num_padded_nodes * self.num_relations
        counts = np.bincount(place, weights=self.graph.edge_mask, minlength=size)
        return self.graph.edge_mask / np.maximum(counts[place], 1)

    def adjacency(self) -> Float[np.ndarray, "relation node node"]:
        """A_r[receiver, sender] of each relation, its rows normalized."""
        size = self.graph.num_padded_nodes
        matrices = np.zeros((self.num_relations, size, size))
        places = self.relation, self.graph.receivers, self.graph.senders
        np.add.at(matrices, places, self.weights)
        return matrices

    def to_graphs_tuple(self) -> jraph.GraphsTuple:
        """A `jraph.GraphsTuple` whose `edges` are the relations, [edge]."""
        return self.graph.to_graphs_tuple()._replace(edges=self.relation)


def _edges_by_relation(grid: GridGraph) -> dict[str, Int[np.ndarray, "2 edge"]]:
    edges = {}
    for i, scale in enumerate(grid.scales):
        for offset in sorted({(0, 0), *grid.stencils[i].offsets}):
            name = f"{COMPASS[offset]}{scale.patch_size}"
            edges[name] = shift_pairs(grid.grid(i), *offset)
    if grid.across:
        for i, fine in enumerate(grid.scales):
            for j in range(i + 1, len(grid.scales)):
                coarse = grid.scales[j].patch_size
                up = np.stack([grid.grid(i).ravel(), grid.covering(i, j).ravel()])
                edges[f"up{fine.patch_size}_{coarse}"] = up
                edges[f"down{coarse}_{fine.patch_size}"] = up[::-1]
    patches = np.arange(grid.num_patches)
    for i, name in enumerate(grid.hub_names[: grid.num_hubs]):
        hub = np.full(grid.num_patches, grid.hubs.start + i)
        edges[f"from_{name}"] = np.stack([hub, patches])
        edges[f"to_{name}"] = np.stack([patches, hub])
        edges[f"self_{name}"] = np.stack([hub[:1], hub[:1]])
    return edges
