"""Prepared data sets in TFDS's layout, as array_record, read without TensorFlow.

Records are decoded here and not by TFDS: it would decode with OpenCV where that is
installed, whose JPEG pixels differ, and take three times as long.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from dig_jax.data.damage import DamagedRecordError
from dig_jax.data.fingerprint import compute_fingerprint
from dig_jax.data.tfds_decoders import choose_decoder
from dig_jax.errors import InputError
from dig_jax.files.paths import is_remote
from dig_jax.files.reading import read_json, readable

if TYPE_CHECKING:
    from pathlib import Path

    import tensorflow_datasets as tfds
    from etils import epath

MAX_KEPT_BYTES = 256 * 2**20
# Where features.json names classes: as protobuf's JSON may, and in TFDS's older files.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_TFDS_FEATURES = "tensorflow_datasets.core.features."


def open_prepared(path: epath.Path | Path) -> tfds.core.DatasetBuilder:
    """The data set in a version folder in TFDS's layout.

    Raises:
        InputError: Its features are described by other classes than TFDS's own: TFDS
            imports whatever module the file names, and so would run its code.
    """
    import tensorflow_datasets as tfds
    from etils import epath

    file = epath.Path(path) / "features.json"
    if file.exists():
        with readable(file, "cannot be read"):
            _check_features(read_json(file, "cannot be read"))
    with _door_to(path):
        return tfds.builder_from_directory(path)


def _door_to(path: epath.Path | Path) -> AbstractContextManager[None]:
    """Turns whatever TFDS raises of a folder's files into an InputError."""
    if is_remote(path):  # whose errors are explained as those of a bucket
        return nullcontext()
    what = "is no data set that can be read"
    return readable(path, what, "Prepare it again.", (Exception,))


def _check_features(value: Any) -> None:
    """Raise ValueError where a class is named that is none of TFDS's features."""
    if isinstance(value, list):
        for part in value:
            _check_features(part)
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        named = key in _CLASS_KEYS and isinstance(part, str)
        if named and not part.startswith(_TFDS_FEATURES):
            raise ValueError(f"it names the class {part!r}, none of {_TFDS_FEATURES}*")
        _check_features(part)


class TFDSSource:
    """One split of a prepared data set with features image and, maybe, label.

    A small split (CIFAR-10, SVHN's train) keeps each record in memory once it was read.
    Workers keep their own. Folders may be remote, as in `gs://`.

    Args:
        name: Name in DATASETS, and of the source where its metadata has no other.
        builder: Where the data is and what it is; must be prepared.
        split: One of the builder's splits, or TFDS's syntax for parts of them, such as
            `train[:1000]` or `train+extra`.
        transform: How images of another size came to this one, where the data set's
            own metadata does not say; "none" if they did not.
        may_flip: Whether a mirrored image is still one of this data set, where its
            metadata does not say that it is not.
        max_kept_bytes: Larger splits are read again each time.

    Raises:
        InputError: There is no such split, or a file or feature that is needed.
    """

    def __init__(
        self,
        name: str,
        builder: tfds.core.DatasetBuilder,
        *,
        split: str,
        transform: str = "none",
        may_flip: bool = True,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ):
        with _door_to(builder.data_path):
            self._open(name, builder, split, transform, may_flip, max_kept_bytes)

    def _open(
        self,
        name: str,
        builder: tfds.core.DatasetBuilder,
        split: str,
        transform: str,
        may_flip: bool,
        max_kept_bytes: int,
    ) -> None:
        info = builder.info
        features: Any = info.features  # A FeaturesDict, declared as something wider.
        metadata = _read_metadata(builder)
        self.name: str = metadata.get("name", name)
        self.split = split
        self.may_flip = may_flip and metadata.get("may_flip", True) is True
        self.transform: str = metadata.get("transform", transform)
        self._label_counts = _check_counts(metadata.get("label_counts", {}))
        self._places = _open_places(name, builder, split)
        self._records = _open_split(builder, split)
        self._is_remote = "://" in str(builder.data_path)
        self._decode_image = choose_decoder(name, features)
        self.image_shape: tuple[int, int, int] = tuple(features["image"].shape)
        has_labels = "label" in features
        self.class_names = tuple(features["label"].names) if has_labels else ()
        self.num_classes = len(self.class_names)
        self.fingerprint = compute_fingerprint(
            name=name,
            version=str(info.version),
            split=split,
            length=len(self),
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            transform=self.transform,
            # A part of a split has no size of its own, so all whole splits are named.
            splits=metadata.get("content")
            or {key: [s.num_examples, s.num_bytes] for key, s in info.splits.items()},
        )
        num_bytes = len(self) * int(np.prod(self.image_shape))
        self._keeps = num_bytes <= max_kept_bytes
        if not self._is_remote and len(self):
            self._check_names(features)
        self._kept: dict[int, Mapping[str, Any]] = {}

    def _check_names(self, features: Any) -> None:
        """Raise ValueError where records have other features than features.json says.

        One flipped bit in a name would make a data set one without labels.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            example = tf_example_pb2.Example.FromString(self._fetch(0))
        except Exception:  # a damaged record is told when it is asked for
            return
        for name in ("image", "label"):
            if (name in example.features.feature) != (name in features):
                raise ValueError(f"its records and its features.json differ in {name}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """As `ImageSource` says.

        Raises:
            DamagedRecordError: The record cannot be read, or is not what it should be.
        """
        record = self._kept.get(index)
        if record is None:
            record = self._read(index)
            if self._keeps:
                self._kept[index] = record
        return record

    def __getitems__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Several records, fetched from their files together if that is faster.

        Raises:
            DamagedRecordError: One of them is damaged.
        """
        if self._is_remote:
            # From a bucket array_record takes longer for many than for one by one.
            return [self[index] for index in indices]
        missing = [index for index in indices if index not in self._kept]
        try:
            contents = self._records.__getitems__(missing)
            read = dict(zip(missing, map(self._decode, contents), strict=True))
        except Exception:  # Of whatever sort: one by one it is named, or passes.
            return [self[index] for index in indices]
        if self._keeps:
            self._kept.update(read)
        return [read.get(index) or self._kept[index] for index in indices]

    def count_labels(self) -> Int64[np.ndarray, "class"] | None:
        """Images of each class, if that was counted when they were prepared."""
        known = [self._label_counts.get(part) for part in self.split.split("+")]
        if None in known:
            return None
        return np.sum(np.array(known, np.int64), axis=0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def _read(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of {len(self)} images.")
        try:
            return self._decode(self._fetch(index))
        # Whatever a damaged record makes a decoder raise; budgets catch our own faults.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise DamagedRecordError(self._places(index), reason) from error

    def _fetch(self, index: int) -> bytes:
        try:
            return self._records[index]
        except Exception:  # Remote storage fails now and then; damage fails again.
            return self._records[index]

    def _decode(self, serialized: bytes) -> Mapping[str, Any]:
        from tensorflow_datasets.proto import tf_example_pb2

        features = tf_example_pb2.Example.FromString(serialized).features.feature
        image = self._decode_image(features["image"])
        if image.shape != self.image_shape or image.dtype != np.uint8:
            raise ValueError(
                f"the image must be uint8 {self.image_shape}, and is {image.dtype} "
                f"{image.shape}"
            )
        label = 0
        if self.num_classes:
            label = features["label"].int64_list.value[0]
            if not 0 <= label < self.num_classes:
                raise ValueError(
                    f"the label must be below {self.num_classes}, and is {label}"
                )
        image.setflags(write=False)
        return {"image": image, "label": np.int32(label)}


class _Places:
    """The file and position of each record of a split, in words."""

    def __init__(self, instructions: list[Any]):
        self._files = [str(i.filename) for i in instructions]
        self._skips = [i.skip for i in instructions]
        self._ends = list(itertools.accumulate(i.take for i in instructions))

    def __call__(self, index: int) -> str:
        file = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[file - 1] if file else 0) + self._skips[file]
        return f"{self._files[file]}, record {position}"


def _open_places(name: str, builder: tfds.core.DatasetBuilder, split: str) -> _Places:
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        choices = ", ".join(sorted(builder.info.splits))
        raise InputError(
            f"Data set {name!r} has no split {split!r}. Available: {choices}."
        ) from error
    there = {path.name for path in builder.data_path.iterdir()}
    for instruction in instructions:
        file = str(instruction.filename).rpartition("/")[2]
        if file not in there:
            raise InputError(
                f"Data set {name!r} is not whole: {file} is missing in "
                f"{builder.data_path}."
            )
    return _Places(instructions)


def _open_split(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    from tensorflow_datasets.core.decode import DeserializeMethod

    return builder.as_data_source(
        split,
        # TFDS wraps the method in a decorator that hides its parameters.
        deserialize_method=DeserializeMethod.RAW_BYTES,  # pyright: ignore[reportCallIssue]
    )


def _read_metadata(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """What `dig_jax.prepare` wrote beside the records; nothing if TFDS prepared it."""
    path = builder.data_path / "metadata.json"
    if not path.exists():
        return {}
    metadata = read_json(path, "is no metadata of a data set")
    if not isinstance(metadata.get("transform", ""), str):
        raise InputError(f"{path} does not tell its transform as text.")
    return metadata


def _check_counts(counts: Any) -> dict[str, list[int]]:
    """Raise TypeError unless these are numbers of images of each class, by split."""
    if not isinstance(counts, dict) or not all(
        isinstance(of_split, list) and all(type(n) is int for n in of_split)
        for of_split in counts.values()
    ):
        raise TypeError("label_counts of its metadata are no counts by split")
    return counts
