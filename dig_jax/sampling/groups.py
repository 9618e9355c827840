"""Which images are computed together, and the key of each."""

from dataclasses import replace

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from dig_jax.options import SampleOptions

# Images are computed in groups of a fixed size, whatever the batch: how a matrix
# product rounds depends on its shape, and so would an image on its batch.
GROUP_SIZE = {"cpu": 16}
ACCELERATOR_GROUP_SIZE = 64


def group_size(platform: str) -> int:
    """Images that are computed together on a platform."""
    return GROUP_SIZE.get(platform, ACCELERATOR_GROUP_SIZE)


def batch_size_of(options: SampleOptions, mesh: Mesh) -> int:
    """Images that are drawn at a time: whole groups on every device."""
    quantum = group_size(mesh.devices.flat[0].platform) * mesh.size
    return -(-min(options.batch_size, options.num_images) // quantum) * quantum


def program_of(options: SampleOptions, mesh: Mesh) -> SampleOptions:
    """What is compiled for these options: the same for all that share a program."""
    size = batch_size_of(options, mesh)
    return replace(options, num_images=size, batch_size=size, labels="balanced", seed=0)


@jax.jit
def image_keys(seed: int | Array, index: Int[Array, "batch"]) -> Key[Array, "batch"]:
    """The key of each image, from a seed and the images' numbers."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)
