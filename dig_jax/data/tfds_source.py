"""Data sets that TFDS has prepared as array_record, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dig_jax.data.fingerprint import compute_fingerprint
from dig_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_MAX_KEPT_BYTES = 256 * 2**20


class TFDSSource:
    """One split of a prepared TFDS data set with features image and label.

    Decoding costs some 100 us a record, so a split of up to 256 MiB (CIFAR-10, SVHN's
    train) keeps each record in memory once it was read. Workers keep their own.

    Args:
        name: Name in DATASETS.
        builder: Where the data is and what it is; must be prepared.
        split: One of the builder's splits, or TFDS's syntax for parts of them, such as
            `train[:1000]` or `train+extra`.

    Raises:
        InputError: There is no such split.
    """

    def __init__(self, name: str, builder: tfds.core.DatasetBuilder, *, split: str):
        info = builder.info
        features: Any = info.features  # A FeaturesDict, declared as something wider.
        self.name = name
        self.split = split
        self._records = _open_split(name, builder, split)
        self.image_shape: tuple[int, int, int] = tuple(features["image"].shape)
        self.class_names = tuple(features["label"].names)
        self.num_classes = len(self.class_names)
        self.fingerprint = compute_fingerprint(
            name=name,
            version=str(info.version),
            split=split,
            length=len(self),
            image_shape=self.image_shape,
            num_classes=self.num_classes,
            # A part of a split has no size of its own, so all whole splits are named.
            splits={
                key: [s.num_examples, s.num_bytes] for key, s in info.splits.items()
            },
        )
        num_bytes = len(self) * int(np.prod(self.image_shape))
        self._keeps = num_bytes <= _MAX_KEPT_BYTES
        self._kept: dict[int, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        record = self._kept.get(index)
        if record is None:
            record = self._read(index)
            if self._keeps:
                self._kept[index] = record
        return record

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def _read(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside of {len(self)} images.")
        record = self._records[index]
        image = np.asarray(record["image"])
        image.setflags(write=False)
        return {"image": image, "label": np.int32(record["label"])}


def create_digits(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 8,
    channels: int = 1,
    data_dir: str = "",
) -> TFDSSource:
    """Scikit-learn's handwritten digits, 8x8 and grey: 1,500 train and 297 test images.

    Written to data_dir on first use; nothing is downloaded.

    Args:
        split: train or test.
        image_size: 8.
        channels: 1.
        data_dir: TFDS's folder; "" is its default.
    """
    from dig_jax.data.digits import prepare_digits

    _check_shape("digits", image_size, channels, (8, 8, 1))
    return TFDSSource("digits", prepare_digits(data_dir), split=split)


def create_cifar10(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
    data_dir: str = "",
) -> TFDSSource:
    """CIFAR-10: 50,000 train and 10,000 test images, 32x32, ten classes.

    Args:
        split: train or test.
        image_size: 32.
        channels: 3.
        data_dir: TFDS's folder; "" is its default.
    """
    _check_shape("cifar10", image_size, channels, (32, 32, 3))
    builder = find_prepared_builder("cifar10", data_dir)
    return TFDSSource("cifar10", builder, split=split)


def create_svhn(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
    data_dir: str = "",
) -> TFDSSource:
    """Street View House Numbers, cropped digits: 73,257 train and 26,032 test images.

    Args:
        split: train, test or extra (531,131 easier images).
        image_size: 32.
        channels: 3.
        data_dir: TFDS's folder; "" is its default.
    """
    _check_shape("svhn", image_size, channels, (32, 32, 3))
    builder = find_prepared_builder("svhn_cropped", data_dir)
    return TFDSSource("svhn", builder, split=split)


def create_imagenet64(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 64,
    channels: int = 3,
    data_dir: str = "",
) -> TFDSSource:
    """ImageNet at 64x64 (arXiv:1707.08819): 1,281,167 train images, 1,000 classes.

    Args:
        split: train or validation. ImageNet's own test labels are not public, so test
            is another name for validation, as in the literature.
        image_size: 64.
        channels: 3.
        data_dir: TFDS's folder; "" is its default.
    """
    _check_shape("imagenet64", image_size, channels, (64, 64, 3))
    builder = find_prepared_builder("imagenet_resized/64x64", data_dir)
    split = "validation" if split == "test" else split
    return TFDSSource("imagenet64", builder, split=split)


def find_prepared_builder(tfds_name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """A data set of TFDS's own that is prepared in data_dir ("" is TFDS's default).

    Raises:
        InputError: It is not there, or not as array_record; the message says how to
            prepare it.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(tfds_name, data_dir=data_dir or None)
    folder = builder.data_path
    if not (folder / "dataset_info.json").exists():
        raise InputError(
            f"Data set {tfds_name!r} must be prepared before it can be read, and is "
            f"not in {folder}. {_say_how_to_prepare(tfds_name, data_dir)}"
        )
    formats = sorted(form.value for form in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise InputError(
            f"Data set {tfds_name!r} must be prepared as array_record, and is "
            f"{' and '.join(formats)} in {folder}; choose another data_dir. "
            f"{_say_how_to_prepare(tfds_name, '/another/folder')}"
        )
    return builder


def _open_split(name: str, builder: tfds.core.DatasetBuilder, split: str) -> Any:
    try:
        builder.info.splits[split]
    except (KeyError, ValueError) as error:
        choices = ", ".join(sorted(builder.info.splits))
        raise InputError(
            f"Data set {name!r} has no split {split!r}. Available: {choices}."
        ) from error
    # TFDS wraps the method in a decorator that hides its parameters.
    return builder.as_data_source(split)  # pyright: ignore[reportCallIssue]


def _say_how_to_prepare(tfds_name: str, data_dir: str) -> str:
    # Not `tfds build`: in TFDS 4.9.10 it does not start without apache_beam, and no
    # builder of its own without importlib_resources, which it does not require.
    folder = f", data_dir={data_dir!r}" if data_dir else ""
    return (
        "To prepare it (TensorFlow is needed for this alone):\n"
        "  pip install tensorflow importlib_resources\n"
        '  python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({tfds_name!r}{folder})"
        ".download_and_prepare(file_format='array_record')\""
    )


def _check_shape(
    name: str,
    image_size: int | tuple[int, int],
    channels: int,
    needed: tuple[int, int, int],
) -> None:
    rows, cols = (image_size,) * 2 if isinstance(image_size, int) else image_size
    if (rows, cols, channels) != needed:
        raise InputError(
            f"Data set {name!r} has images of {'x'.join(map(str, needed))} (rows, "
            f"cols, channels), got image_size={image_size}, channels={channels}."
        )
