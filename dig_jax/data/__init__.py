"""Real and synthetic images: one table of data sets, one way to load batches of them.

Reading needs no TensorFlow. Large data sets are prepared once, as array_record; the
error for a missing one says how.
"""

from collections.abc import Callable
from typing import Any

from dig_jax.data.idx_sets import (
    create_fashion_mnist,
    create_idx,
    create_kmnist,
    create_mnist,
)
from dig_jax.data.latents import create_latents
from dig_jax.data.npz import create_npz
from dig_jax.data.prepared import (
    create_celeba64,
    create_cifar10,
    create_digits,
    create_folder,
    create_imagenet64,
    create_prepared,
    create_svhn,
)
from dig_jax.data.synthetic import create_synthetic
from dig_jax.errors import InputError
from dig_jax.interfaces import ImageSource, Table

DATASETS: Table[Callable[..., ImageSource]] = Table(
    {
        "celeba64": create_celeba64,
        "cifar10": create_cifar10,
        "digits": create_digits,
        "fashion_mnist": create_fashion_mnist,
        "folder": create_folder,
        "idx": create_idx,
        "imagenet64": create_imagenet64,
        "latents": create_latents,
        "kmnist": create_kmnist,
        "mnist": create_mnist,
        "npz": create_npz,
        "prepared": create_prepared,
        "svhn": create_svhn,
        "synthetic": create_synthetic,
    },
    "Data sets by `config.data.name`. An entry opens an ImageSource from a split and "
    'the section\'s other keys: create_dataset(name, split="train", ...).',
)


def create_dataset(name: str, *, split: str = "train", **options: Any) -> ImageSource:
    """One split of a data set in DATASETS; options are its factory's keywords.

    Raises:
        InputError: There is no such data set, or its factory refuses an option.
    """
    if name not in DATASETS:
        choices = ", ".join(sorted(DATASETS))
        raise InputError(f"Unknown data set {name!r}. Available: {choices}.")
    return DATASETS[name](split=split, **options)
