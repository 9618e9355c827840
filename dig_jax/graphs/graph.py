"""A weighted directed graph as an edge list of fixed size, to and from jraph."""

from dataclasses import dataclass
from functools import cached_property

import jraph
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dig_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class Graph:
    """A static graph: an edge list in NumPy, padded to a fixed size.

    Padding nodes come last. Padding edges come last too, join the last padding node to
    itself and weigh nothing, so that they change no sum.

    Attributes:
        senders: Node at which each edge starts, padding included.
        receivers: Node at which each edge ends.
        weights: Weight of each edge; 0 marks padding.
        num_nodes: Number of real nodes.
        num_edges: Number of real edges.
        num_padded_nodes: Number of nodes with padding.
    """

    senders: Int[np.ndarray, "edge"]
    receivers: Int[np.ndarray, "edge"]
    weights: Float[np.ndarray, "edge"]
    num_nodes: int
    num_edges: int
    num_padded_nodes: int

    @classmethod
    def create(
        cls,
        senders: Int[np.ndarray, "edge"],
        receivers: Int[np.ndarray, "edge"],
        weights: Float[np.ndarray, "edge"] | None = None,
        *,
        num_nodes: int,
    ) -> "Graph":
        """An unpadded graph from an edge list; without weights every edge weighs 1.

        Raises:
            InputError: An edge names a node that does not exist.
        """
        senders = np.asarray(senders, np.int32)
        receivers = np.asarray(receivers, np.int32)
        if weights is None:
            weights = np.ones(len(senders))
        ends = np.concatenate([senders, receivers])
        if len(ends) and (ends.min() < 0 or ends.max() >= num_nodes):
            raise InputError(
                f"Edges must join nodes 0 to {num_nodes - 1}, got an edge that names "
                f"node {ends.min() if ends.min() < 0 else ends.max()}."
            )
        weights = np.asarray(weights, np.float64)
        return cls(senders, receivers, weights, num_nodes, len(senders), num_nodes)

    def padded(self, multiple: int) -> "Graph":
        """The same graph with node and edge counts rounded up to a multiple.

        Edges are padded only where there is a padding node to hold them.
        """
        if self.num_padded_nodes != self.num_nodes:
            raise InputError("Only an unpadded graph can be padded.")
        num_padded_nodes = _round_up(self.num_nodes, multiple)
        if num_padded_nodes == self.num_nodes:
            return self
        extra = _round_up(self.num_edges, multiple) - self.num_edges
        last = np.full(extra, num_padded_nodes - 1, np.int32)
        return Graph(
            senders=np.concatenate([self.senders, last]),
            receivers=np.concatenate([self.receivers, last]),
            weights=np.concatenate([self.weights, np.zeros(extra)]),
            num_nodes=self.num_nodes,
            num_edges=self.num_edges,
            num_padded_nodes=num_padded_nodes,
        )

    @cached_property
    def node_mask(self) -> Bool[np.ndarray, "node"]:
        """True for real nodes."""
        return np.arange(self.num_padded_nodes) < self.num_nodes

    @cached_property
    def edge_mask(self) -> Bool[np.ndarray, "edge"]:
        """True for real edges."""
        return np.arange(len(self.senders)) < self.num_edges

    @cached_property
    def in_weight(self) -> Float[np.ndarray, "node"]:
        """Sum of the weights that arrive at each node: its degree where all weigh 1."""
        sums = np.bincount(
            self.receivers, weights=self.weights, minlength=self.num_padded_nodes
        )
        return sums.astype(np.float64)  # without any edge, bincount counts in integers

    @cached_property
    def inverse_in_weight(self) -> Float[np.ndarray, "node"]:
        """1 / in_weight, and 0 for nodes that nothing arrives at."""
        positive = self.in_weight > 0
        return np.where(positive, 1 / np.where(positive, self.in_weight, 1), 0.0)

    @cached_property
    def self_weight(self) -> Float[np.ndarray, "node"]:
        """Sum of the weights of each node's self-loops: the diagonal of A."""
        loops = self.senders == self.receivers
        sums = np.bincount(
            self.receivers[loops],
            weights=self.weights[loops],
            minlength=self.num_padded_nodes,
        )
        return sums.astype(np.float64)

    def adjacency(self) -> Float[np.ndarray, "node node"]:
        """Dense matrix A with A[receiver, sender] = weight, padding included."""
        matrix = np.zeros((self.num_padded_nodes, self.num_padded_nodes))
        np.add.at(matrix, (self.receivers, self.senders), self.weights)
        return matrix

    def to_graphs_tuple(
        self, nodes: Shaped[np.ndarray, "node ..."] | None = None
    ) -> jraph.GraphsTuple:
        """A `jraph.GraphsTuple`, its padding a second graph, as jraph has it.

        Args:
            nodes: Features of the nodes, padding included.
        """
        padding = self.num_padded_nodes - self.num_nodes
        counts = [(self.num_nodes, self.num_edges)]
        if padding:
            counts.append((padding, len(self.senders) - self.num_edges))
        n_node, n_edge = (
            np.array(count, np.int32) for count in zip(*counts, strict=True)
        )
        return jraph.GraphsTuple(
            nodes=nodes,
            edges=self.weights.astype(np.float32)[:, None],
            senders=self.senders,
            receivers=self.receivers,
            n_node=n_node,
            n_edge=n_edge,
            globals=None,
        )

    @classmethod
    def from_graphs_tuple(
        cls, graphs: jraph.GraphsTuple, *, num_padding_graphs: int = 0
    ) -> "Graph":
        """The union of the graphs of a `jraph.GraphsTuple`.

        Args:
            graphs: Any number of graphs; `edges` are weights [edge, 1], or None for 1.
            num_padding_graphs: How many graphs at the end are padding.
        """
        real = len(graphs.n_node) - num_padding_graphs
        num_nodes, num_edges = (
            int(np.sum(np.asarray(count)[:real]))
            for count in (graphs.n_node, graphs.n_edge)
        )
        senders = np.asarray(graphs.senders, np.int32)
        weights = np.zeros(len(senders))
        weights[:num_edges] = (
            1.0
            if graphs.edges is None
            else np.asarray(graphs.edges, np.float64).reshape(len(senders))[:num_edges]
        )
        return cls(
            senders=senders,
            receivers=np.asarray(graphs.receivers, np.int32),
            weights=weights,
            num_nodes=num_nodes,
            num_edges=num_edges,
            num_padded_nodes=int(np.sum(np.asarray(graphs.n_node))),
        )


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
