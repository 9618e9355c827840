"""What images go through while they are drawn."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Key

from dig_jax.devices.sharding import BATCH_AXES, to_host
from dig_jax.interfaces import Params
from dig_jax.sampling.between import Between
from dig_jax.sampling.groups import image_keys
from dig_jax.sampling.sampler import Sampler
from dig_jax.solvers.sample import Watch

Batch: TypeAlias = tuple[
    Key[Array, "batch"], Int[np.ndarray, "batch"] | None, Between | None
]
"""Keys, labels and what the images lie between."""


def draw_path(
    sampler: Sampler,
    params: Params,
    watch: Watch,
    choose: Callable[[Int[np.ndarray, "batch"]], Batch] | None = None,
) -> Float[np.ndarray, "image frame row col channel"]:
    """What a sampler's images go through; of one process.

    Args:
        sampler: Draws them, batch by batch; each kind of path is compiled once.
        params: Parameters of the backbone.
        watch: At which steps.
        choose: What images of these numbers are drawn from; by default their own keys
            and labels.

    Returns:
        At the end what `Sampler.draw` makes pixels of; before it x or the estimates.
    """
    if watch not in sampler.paths:
        sampler.paths[watch] = _compiled(sampler, watch)
    labels, total, drawn = sampler.labels, sampler.options.num_images, []

    def by_itself(index: Int[np.ndarray, "batch"]) -> Batch:
        keys = image_keys(sampler.options.seed, index)
        return keys, None if labels is None else labels[index], None

    guide = sampler.guide.params if sampler.guide is not None else None
    for first in range(0, total, sampler.batch_size):
        index = np.arange(first, first + sampler.batch_size)
        batch = (choose or by_itself)(np.minimum(index, total - 1))
        paths = sampler.paths[watch](params, guide, *batch)
        drawn.append(to_host(paths)[: total - first])
    return np.concatenate(drawn)


def _compiled(sampler: Sampler, watch: Watch) -> Callable:
    """The program of a path, on all devices of the sampler's mesh."""

    def draw(
        params: Params,
        guide: Params | None,
        keys: Key[Array, "batch"],
        labels: Int[Array, "batch"] | None,
        between: Between | None,
    ) -> Array:
        chosen = {"between": between, "watch": watch}
        return sampler.draw_groups(params, guide, keys, labels, **chosen)

    spread = PartitionSpec(BATCH_AXES)
    return jax.jit(
        jax.shard_map(
            draw,
            mesh=sampler.mesh,
            in_specs=(PartitionSpec(), PartitionSpec(), spread, spread, spread),
            out_specs=spread,
            check_vma=False,
        )
    )
