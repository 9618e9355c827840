"""Features of images, from a network, spread over devices."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Shaped, UInt8

from dig_jax.errors import InputError
from dig_jax.interfaces import Params

# Each device computes images in groups of a fixed size: how a product rounds depends on
# its shape, and so would an image's features on the number of images and devices.
GROUP_SIZE = {"cpu": 8}
ACCELERATOR_GROUP_SIZE = 64


class Features(NamedTuple):
    """What a network says of images, in float32, a row for each.

    Attributes:
        pool: Features that sets of images are compared by.
        logits: Of the classes that the network was trained on.
        spatial: Features that keep places (sFID); None where the network has none.
    """

    pool: Float32[Array, "batch dim"]
    logits: Float32[Array, "batch class"]
    spatial: Float32[Array, "batch spatial"] | None = None


class HostFeatures(NamedTuple):
    """`Features` in the host's memory."""

    pool: Float32[np.ndarray, "batch dim"]
    logits: Float32[np.ndarray, "batch class"]
    spatial: Float32[np.ndarray, "batch spatial"] | None


ImageFeaturesFn: TypeAlias = Callable[
    [Params, UInt8[Array, "batch row col rgb"]], Features
]
"""`(params, uint8 images) -> Features`, a function to trace."""


ImageBatches: TypeAlias = Iterable[Shaped[np.ndarray, "_ _ _ _"]]
"""uint8 images [batch, row, col, rgb], of any number each, of one shape."""


@dataclass(frozen=True)
class FeatureSpace:
    """Which numbers features are: sets are comparable in one space alone.

    Attributes:
        name: The network.
        weights: Digest of its weights.
        resize: How images become its input.
        dim: Number of features.
        domain: Data set that the network was trained on for this comparison, which the
            names of scores then carry; "" for Inception.
    """

    name: str
    weights: str
    resize: str
    dim: int
    domain: str = ""


class FeatureExtractor(NamedTuple):
    """A network that features come from.

    Attributes:
        space: What its features are.
        params: Its parameters.
        apply: The network.
    """

    space: FeatureSpace
    params: Params
    apply: ImageFeaturesFn


def extract_features(
    extractor: FeatureExtractor,
    images: ImageBatches,
    mesh: Mesh,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[HostFeatures]:
    """Features of every image, once and in order, some at a time.

    They depend neither on how the images come in batches nor on the number of devices.

    Args:
        extractor: The network.
        images: Batches of uint8 images of one shape, with one channel or three.
        mesh: The devices; images are spread over all of its axes.
        on_progress: Called with the number of images done so far.

    Raises:
        InputError: Images are not uint8, or differ in shape.
    """
    platform = mesh.devices.flat[0].platform
    group = GROUP_SIZE.get(platform, ACCELERATOR_GROUP_SIZE)
    apply = _spread_over_devices(extractor.apply, mesh)
    params = jax.device_put(extractor.params, NamedSharding(mesh, PartitionSpec()))
    spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    done = 0
    waiting: tuple[Features, int] | None = None
    for batch, count in _full_batches(images, group * mesh.size):
        # The devices work on this batch while the host takes up the one before.
        started = apply(params, jax.device_put(batch, spread)), count
        if waiting is not None:
            yield _to_host(*waiting)
        waiting = started
        done += count
        if on_progress is not None:
            on_progress(done)
    if waiting is not None:
        yield _to_host(*waiting)


@lru_cache(maxsize=8)
def _spread_over_devices(apply: ImageFeaturesFn, mesh: Mesh) -> ImageFeaturesFn:
    spread = PartitionSpec(mesh.axis_names)
    return jax.jit(
        jax.shard_map(
            apply,
            mesh=mesh,
            in_specs=(PartitionSpec(), spread),
            out_specs=spread,
            check_vma=False,
        )
    )


def _to_host(features: Features, count: int) -> HostFeatures:
    pool, logits, spatial = jax.tree.map(lambda a: np.asarray(a)[:count], features)
    return HostFeatures(pool, logits, spatial)


def _full_batches(
    batches: ImageBatches, size: int
) -> Iterator[tuple[UInt8[np.ndarray, "_ _ _ _"], int]]:
    """Batches of `size` images and how many count: the last repeats its last image."""
    waiting: list[np.ndarray] = []
    shape = None
    for images in batches:
        shape = images.shape[1:] if shape is None else shape
        _check_images(images, shape)
        waiting.append(images)
        if sum(map(len, waiting)) >= size:
            joined = np.concatenate(waiting)
            whole = len(joined) // size * size
            for start in range(0, whole, size):
                yield joined[start : start + size], size
            waiting = [joined[whole:]]
    rest = np.concatenate(waiting) if waiting else ()
    if len(rest):
        padding = np.repeat(rest[-1:], size - len(rest), axis=0)
        yield np.concatenate([rest, padding]), len(rest)


def _check_images(images: np.ndarray, shape: tuple[int, ...]) -> None:
    if images.dtype != np.uint8:
        raise InputError(
            f"Features need uint8 images with pixels 0 to 255, got {images.dtype}."
        )
    if images.shape[1:] != shape or shape[2] not in (1, 3) or 0 in shape:
        raise InputError(
            "Features need images of one shape (row, col, rgb) with one channel or "
            f"three, got {images.shape[1:]} and {shape}."
        )
