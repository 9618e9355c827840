"""What a node of a grid graph receives: from whom, and with which weights."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dig_jax.errors import InputError
from dig_jax.graphs.graph import Graph
from dig_jax.graphs.grid import HUB_WORDS, GridGraph
from dig_jax.graphs.normalization import Normalization, node_factors
from dig_jax.graphs.relations import RelationalGraph


class Received(NamedTuple):
    """What arrives at a node by one kind of edge.

    Attributes:
        name: The kind, in words or as the relation is called.
        receiver: The node, or the coarser patch around it that receives for it.
        senders: Nodes, as `GridGraph` counts them.
        weights: Of their features in the sum that arrives.
    """

    name: str
    receiver: int
    senders: Int[np.ndarray, "sender"]
    weights: Float[np.ndarray, "sender"]


def received_by_scale(
    grid: GridGraph, node: int, normalization: Normalization
) -> list[Received]:
    """One hop of DiG-parallel: at each scale the patch over a node, or a hub.

    Args:
        grid: The graph with all scales.
        node: A patch of the finest scale, or a hub.
        normalization: Of the sum.

    Raises:
        InputError: There is no such node.
    """
    finest = grid.scales[0]
    is_hub = grid.hubs.start <= node < grid.hubs.stop
    if not (0 <= node < finest.num_nodes or is_hub):
        raise InputError(
            f"Nodes of the finest scale are 0 to {finest.num_nodes - 1}, hubs "
            f"{grid.hubs.start} to {grid.hubs.stop - 1}; got {node}."
        )
    found = []
    for i, scale in enumerate(grid.scales):
        alone = grid.at_scale(i)
        # Nodes of one scale's graph, as the graph of all scales counts them.
        numbers = np.concatenate(
            [
                np.arange(grid.num_nodes)[scale.nodes],
                np.arange(grid.num_nodes)[grid.hubs],
            ]
        )
        receiver = node if is_hub else int(grid.covering(0, i).ravel()[node])
        mine = int(np.flatnonzero(numbers == receiver)[0])
        senders, weights = _arriving(alone.graph, mine, normalization)
        name = f"{scale.patch_size}-pixel patches"
        found.append(Received(name, receiver, numbers[senders], weights))
    return found


def received_by_kind(
    grid: GridGraph, node: int, normalization: Normalization
) -> list[Received]:
    """One hop of DiG-mix, on one graph: in the scale, across scales, from the hubs.

    Args:
        grid: The graph.
        node: A patch of any scale, or a hub.
        normalization: Of the sum over all of them.

    Raises:
        InputError: There is no such node.
    """
    _check_node(grid, node)
    senders, weights = _arriving(grid.graph, node, normalization)
    found = [
        (f"{scale.patch_size}-pixel patches", scale.nodes) for scale in grid.scales
    ]
    if grid.num_hubs:
        found.append(("hubs", grid.hubs))
    groups = []
    for name, part in found:
        mine = (senders >= part.start) & (senders < part.stop)
        if mine.any():
            groups.append(Received(name, node, senders[mine], weights[mine]))
    return groups


def received_by_relation(grid: GridGraph, node: int) -> list[Received]:
    """One hop of a network with relations: the mean over the edges of each.

    The network multiplies each mean by weights that it has learned, one for each
    channel.

    Args:
        grid: The graph.
        node: A patch of any scale, or a hub.

    Raises:
        InputError: There is no such node.
    """
    _check_node(grid, node)
    relations = RelationalGraph.of_grid(grid)
    arriving = relations.graph.receivers == node
    found = []
    for i, name in enumerate(relations.names):
        edges = np.flatnonzero(arriving & (relations.relation == i))
        weights = relations.weights[edges]
        edges, weights = edges[weights > 0], weights[weights > 0]
        if len(edges):
            senders = relations.graph.senders[edges]
            found.append(Received(in_words(name), node, senders, weights))
    return found


def in_words(relation: str) -> str:
    """The name of a relation as people read it: "down, 4 to 2 pixels" for down4_2."""
    kind, _, hub = relation.partition("_")
    relation = f"{kind}_{HUB_WORDS[hub]}" if hub in HUB_WORDS else relation
    said = re.sub(r"(\d+)_(\d+)$", r", \1 to \2 pixels", relation)
    return re.sub(r"([a-z])(\d+)$", r"\1, \2 pixels", said).replace("_", " ")


def _arriving(
    graph: Graph, node: int, normalization: Normalization
) -> tuple[Int[np.ndarray, "sender"], Float[np.ndarray, "sender"]]:
    """Who sends to a node, and with which weights; a node may send to itself."""
    factors = node_factors(graph, normalization)
    edges = np.flatnonzero((graph.receivers == node) & graph.edge_mask)
    senders = graph.senders[edges].astype(np.int64)
    weights = graph.weights[edges] * factors.before[senders]
    if factors.own[node]:
        senders = np.append(senders, node)
        weights = np.append(weights, factors.own[node] * factors.before[node])
    return senders, weights * factors.after[node]


def _check_node(grid: GridGraph, node: int) -> None:
    if not 0 <= node < grid.num_nodes:
        raise InputError(f"Nodes are 0 to {grid.num_nodes - 1}, got {node}.")
