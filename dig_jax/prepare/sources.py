"""The data sets that can be prepared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from dig_jax.prepare.celeba import open_celeba
from dig_jax.prepare.cifar10 import open_cifar10
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.idx import KNOWN_SETS, open_idx
from dig_jax.prepare.imagenet import open_imagenet
from dig_jax.prepare.resize import CELEBA_TRANSFORMS, IMAGENET_TRANSFORMS
from dig_jax.prepare.splits import RawDataset
from dig_jax.prepare.svhn import open_svhn


@dataclass(frozen=True)
class PreparedSource:
    """A data set that can be prepared.

    Attributes:
        open: Its images, from a file or folder; those of IDX files with class_names.
            Its docstring's first line is the line of --help where that has no other.
        tfds_name: What TFDS downloads; "" if it does not have it.
        image_size: Side of the square; None for what --image_size says.
        transforms: How images become squares, the default first; () for as they are.
        published: Images of each split, if nothing is missing.
    """

    open: Callable[..., RawDataset]
    tfds_name: str = ""
    image_size: int | None = None
    transforms: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)


SOURCES = {
    "celeba64": PreparedSource(
        open_celeba,
        tfds_name="celeb_a",
        image_size=64,
        transforms=tuple(CELEBA_TRANSFORMS),
        published={"train": 162_770, "validation": 19_867, "test": 19_962},
    ),
    "cifar10": PreparedSource(
        open_cifar10,
        tfds_name="cifar10",
        image_size=32,
        published={"train": 50_000, "test": 10_000},
    ),
    "folder": PreparedSource(
        open_folder, transforms=(*IMAGENET_TRANSFORMS, "box", "none")
    ),
    **{
        name: PreparedSource(
            partial(open_idx, called=name),
            tfds_name=name,
            image_size=28,
            published={"train": 60_000, "test": 10_000},
        )
        for name in KNOWN_SETS
    },
    "idx": PreparedSource(open_idx),
    "imagenet64": PreparedSource(
        open_imagenet,
        tfds_name="imagenet_resized/64x64",
        image_size=64,
        transforms=tuple(IMAGENET_TRANSFORMS),
        published={"train": 1_281_167, "validation": 50_000},
    ),
    "svhn": PreparedSource(
        open_svhn,
        tfds_name="svhn_cropped",
        image_size=32,
        published={"train": 73_257, "test": 26_032, "extra": 531_131},
    ),
}
