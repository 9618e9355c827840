"""The data set that drawn images are compared with, read when it is needed."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from dig_jax.data.damage import SoundRecords
from dig_jax.data.loader import Batch, collect, read_once
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.experiment.images import open_pixels
from dig_jax.files.paths import AnyPath, is_remote, open_path
from dig_jax.interfaces import ImageSource, LabelledImages, UInt8Images

CACHE_FOLDER = "dig_evaluation"
BATCH_SIZE = 256


class RealImages:
    """Splits of a configuration's data set, each opened and read once.

    Args:
        experiment: Names the data set.
        cache_dir: Where what is made of it is kept; "" for beside it.

    Attributes:
        num_damaged: By split, damaged records that others stood in for when all of its
            images were read.
    """

    def __init__(self, experiment: Experiment, cache_dir: str = "") -> None:
        self._experiment, self._cache_dir = experiment, cache_dir
        self._sources: dict[str, ImageSource] = {}
        self._images: dict[str, LabelledImages] = {}
        self.num_damaged: dict[str, int] = {}

    def source(self, split: str) -> ImageSource:
        """A part of the data set.

        Raises:
            InputError: It cannot be opened.
        """
        if split not in self._sources:
            self._sources[split] = open_pixels(self._experiment, split)
        return self._sources[split]

    @cached_property
    def has_test(self) -> bool:
        """Whether there are test images."""
        self.source("train")  # so that what is wrong with all of it is said
        try:
            return len(self.source("test")) > 0
        except InputError:
            return False

    def all(self, split: str) -> LabelledImages:
        """All images of a split, in memory."""
        if split not in self._images:
            self._images[split] = collect(self.source(split), self._read(split))
        return self._images[split]

    def some(self, split: str, most: int) -> LabelledImages:
        """All images of a split, or as many as are asked for, evenly spread over it."""
        source = self.source(split)
        if len(source) <= most:
            return self.all(split)
        records = SoundRecords(source, self._experiment.data.max_damaged_share)
        index = np.linspace(0, len(source) - 1, most).astype(int)
        rows = [records.read(i).record for i in index.tolist()]
        return LabelledImages(
            np.stack([row["image"] for row in rows]),
            np.array([row["label"] for row in rows], np.int32),
        )

    def batches(self, split: str) -> Iterator[UInt8Images]:
        """All images of a split once, some at a time."""
        if split in self._images:
            images = self._images[split].images
            for start in range(0, len(images), BATCH_SIZE):
                yield images[start : start + BATCH_SIZE]
        else:
            for batch in self._read(split):
                yield batch["image"]

    def _read(self, split: str) -> Iterator[Batch]:
        data, damaged = self._experiment.data, 0
        for batch in read_once(
            self.source(split),
            batch_size=BATCH_SIZE,
            num_threads=data.num_threads,
            max_damaged_share=data.max_damaged_share,
        ):
            damaged += int(batch["damaged"])
            yield batch
        self.num_damaged[split] = damaged

    @property
    def cache_folder(self) -> AnyPath:
        """Where statistics and classifiers are kept: beside the data set if it can be.

        A data set in remote storage has them in the user's own cache.
        """
        if self._cache_dir:
            return open_path(self._cache_dir)
        data = self._experiment.data
        if data.name == "synthetic" or is_remote(data.data_dir):
            return Path.home() / ".cache" / "dig_jax" / CACHE_FOLDER
        if data.data_dir:
            path = open_path(data.data_dir)
            return (path if path.is_dir() else path.parent) / CACHE_FOLDER
        from tensorflow_datasets.core import constants

        return Path(constants.DATA_DIR).expanduser() / CACHE_FOLDER
