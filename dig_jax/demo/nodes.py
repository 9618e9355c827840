"""The nodes of a network's graph: what each receives, from whom, and how much."""

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dig_jax.experiment import Experiment
from dig_jax.graphs import GridGraph
from dig_jax.graphs.received import (
    Received,
    received_by_kind,
    received_by_relation,
    received_by_scale,
)
from dig_jax.interfaces import Params
from dig_jax.models.convolutions import CONVOLUTIONS

Seen = tuple[Float[np.ndarray, "row col channel"], float, int | None]
"""x, its time, and its label: what the network is given."""


class Nodes:
    """The graph of a network, with its parameters.

    Args:
        experiment: The network.
        grid: Its graph.
        params: Its parameters.
    """

    def __init__(self, experiment: Experiment, grid: GridGraph, params: Params) -> None:
        self.grid = grid
        self._backbone, self._params = experiment.backbone, params
        self._network = experiment.backbone_options
        # DiG-parallel keeps features of the finest scale, and pools them in each block.
        self._pools = self._network.name == "dig_parallel"

    def describe(self) -> dict[str, Any]:
        """What draws the graph: scales, hubs, and which nodes have features."""
        grid = self.grid
        return {
            "size": list(grid.image_size),
            "nodes": grid.num_nodes,
            "edges": grid.graph.num_edges,
            "scales": [
                {
                    "patch": scale.patch_size,
                    "rows": scale.rows,
                    "cols": scale.cols,
                    "start": scale.start,
                }
                for scale in grid.scales
            ],
            "hubs": grid.hub_words,
            "pools": self._pools,
            "blocks": self.num_blocks,
            "learned": self._network.name == "dig_relational",
        }

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of the network."""
        label = 0 if self._backbone.num_classes else None
        inputs = self._inputs((np.zeros(self._backbone.image_shape), 1.0, label))
        shape = jax.eval_shape(self._backbone.features, self._params, *inputs).shape
        return int(shape[0])

    def received(self, node: int, block: int, seen: Seen) -> list[dict[str, Any]]:
        """What arrives at a node: senders, weights, and the norm of the patches' part.

        The norm is |sum of weight times features| over the senders that are patches,
        of their features after a block; a coarser patch of DiG-parallel has the mean of
        those that it covers. None for what hubs alone send. Of each sender likewise,
        what it sends: weight times |features|.

        Args:
            node: A node.
            block: 1 for the features after the first block.
            seen: What the network is given.

        Raises:
            InputError: There is no such node, or it is of a scale that does not receive
                by itself.
        """
        groups = self._groups(node)
        found = self._features(self._params, *self._inputs(seen))
        features = self._of_all_scales(np.asarray(found, np.float64)[block - 1, 0])
        return [
            {
                "name": group.name,
                "receiver": group.receiver,
                "senders": group.senders.tolist(),
                "weights": group.weights.tolist(),
                "sent": _sent(group, features),
                "norm": _norm(group, features),
            }
            for group in groups
        ]

    def _groups(self, node: int) -> list[Received]:
        if self._network.name == "dig_relational":
            return received_by_relation(self.grid, node)
        conv = self._network.keywords.get("conv", "sage")
        normalization = CONVOLUTIONS[conv].normalization
        by = received_by_scale if self._pools else received_by_kind
        return by(self.grid, node, normalization)

    @cached_property
    def _features(self) -> Any:
        return jax.jit(self._backbone.features)

    def _inputs(self, seen: Seen) -> tuple[Array, Array, Array | None]:
        x, t, label = seen
        labels = None if label is None else jnp.full(1, label, jnp.int32)
        return jnp.asarray(x, jnp.float32)[None], jnp.full(1, t, jnp.float32), labels

    def _of_all_scales(
        self, features: Float[np.ndarray, "kept width"]
    ) -> Float[np.ndarray, "patch width"]:
        """Features of all patches; those of coarser scales pooled where they are."""
        if not self._pools:
            return features
        scales = []
        for i, scale in enumerate(self.grid.scales):
            finest = self.grid.scales[0].num_nodes
            mask = self.grid.pooling_mask(i)[: scale.num_nodes, :finest]
            scales.append(mask @ features / mask.sum(axis=1, keepdims=True))
        return np.concatenate(scales)


def _sent(
    group: Received, features: Float[np.ndarray, "patch width"]
) -> list[float | None]:
    """Weight times |features| of each sender; None of hubs."""
    return [
        float(weight * np.linalg.norm(features[sender]))
        if sender < len(features)
        else None
        for sender, weight in zip(group.senders, group.weights, strict=True)
    ]


def _norm(group: Received, features: Float[np.ndarray, "patch width"]) -> float | None:
    patches = group.senders < len(features)
    if not patches.any():
        return None
    weights = group.weights[patches]
    return float(np.linalg.norm(weights @ features[group.senders[patches]]))
