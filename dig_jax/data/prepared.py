"""Data sets that are prepared once and then read: where they are, what they are called.

`python -m dig_jax.prepare` writes them in TFDS's layout; CIFAR-10, SVHN and downsampled
ImageNet are also read as TFDS itself prepares them.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Literal, NamedTuple

from dig_jax.data.data_dir import explain_remote_errors, open_data_dir
from dig_jax.data.tfds_source import TFDSSource, open_prepared
from dig_jax.errors import InputError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
    from etils import epath

ImageNetTransform = Literal["box", "adm_center_crop", "area"]
CelebATransform = Literal["center_140", "center_148", "center_89_121_128"]
FolderTransform = Literal["adm_center_crop", "area", "box", "none"]

PREPARED_VERSION = "1.0.0"
UPRIGHT = ("digits", "kmnist", "mnist", "svhn")
"""Data sets in which a mirrored image is not one of its class."""


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

    check_shape("digits", image_size, channels, (8, 8, 1))
    with explain_remote_errors(data_dir):
        builder = prepare_digits(data_dir)
        return TFDSSource("digits", builder, split=split, may_flip=False)


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
    check_shape("cifar10", image_size, channels, (32, 32, 3))
    with explain_remote_errors(data_dir):
        builder = find_prepared("cifar10", data_dir, tfds_name="cifar10")
        return TFDSSource("cifar10", builder, split=split)


def create_svhn(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
    extra: bool = False,
    data_dir: str = "",
) -> TFDSSource:
    """Street View House Numbers, cropped digits: 73,257 train and 26,032 test images.

    Args:
        split: train, test or extra (531,131 easier images).
        image_size: 32.
        channels: 3.
        extra: Whether train is train and extra together: 604,388 images.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("svhn", image_size, channels, (32, 32, 3))
    if extra and split == "train":
        split = "train+extra"
    with explain_remote_errors(data_dir):
        builder = find_prepared("svhn", data_dir, tfds_name="svhn_cropped")
        return TFDSSource("svhn", builder, split=split, may_flip=False)


def create_imagenet64(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 64,
    channels: int = 3,
    transform: ImageNetTransform = "box",
    data_dir: str = "",
) -> TFDSSource:
    """ImageNet at 64x64: 1,281,167 train images, 1,000 classes.

    The downsampled archives (`box`) number the classes otherwise than the others, which
    sort them by synset; `class_names` are synsets in both.

    Args:
        split: train or validation. ImageNet's own test labels are not public, so test
            is another name for validation, as in the literature.
        image_size: 64.
        channels: 3.
        transform: How images came to be 64x64. `box`: the downsampled archives of
            arXiv:1707.08819, squeezed to a square by a box filter. From ImageNet's own
            images: `adm_center_crop`, that of arXiv:2105.05233; `area`, the area
            average of the central square.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("imagenet64", image_size, channels, (64, 64, 3))
    tfds_name = "imagenet_resized/64x64" if transform == "box" else ""
    options = f"--transform={transform}"
    split = "validation" if split == "test" else split
    with explain_remote_errors(data_dir):
        builder = find_prepared(
            "imagenet64", data_dir, transform, tfds_name=tfds_name, options=options
        )
        return TFDSSource("imagenet64", builder, split=split, transform=transform)


def create_celeba64(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 64,
    channels: int = 3,
    transform: CelebATransform = "center_140",
    data_dir: str = "",
) -> TFDSSource:
    """CelebA's aligned faces at 64x64: 162,770 train images, without classes.

    Args:
        split: train, validation (19,867) or test (19,962).
        image_size: 64.
        channels: 3.
        transform: The square that is cut from the 178x218 image and resized with an
            antialiased bilinear filter. `center_140`, `center_148`: the central one of
            that side. `center_89_121_128`: side 128 around column 89, row 121, as in
            DDIM and U-ViT.
        data_dir: TFDS's folder; "" is its default.
    """
    check_shape("celeba64", image_size, channels, (64, 64, 3))
    options = f"--transform={transform}"
    with explain_remote_errors(data_dir):
        builder = find_prepared("celeba64", data_dir, transform, options=options)
        return TFDSSource("celeba64", builder, split=split, transform=transform)


def create_folder(
    *,
    split: str = "train",
    image_size: int | tuple[int, int] = 64,
    channels: int = 3,
    transform: FolderTransform = "adm_center_crop",
    data_dir: str = "",
) -> TFDSSource:
    """A prepared folder of image files; its subfolders are the classes, if it has any.

    Args:
        split: train, or whatever splits the folder had; `test` is held out of train
            where it had none.
        image_size: Side, or (rows, cols), in pixels.
        channels: 1 or 3.
        transform: How images came to that size.
        data_dir: Where it was prepared: one folder of images for each data_dir.
    """
    rows, cols = (image_size,) * 2 if isinstance(image_size, int) else image_size
    size = rows if rows == cols else f"{rows},{cols}"
    name = f"{transform}_{rows}x{cols}x{channels}"
    options = f"--transform={transform} --image_size={size} --channels={channels}"
    with explain_remote_errors(data_dir):
        builder = find_prepared("folder", data_dir, name, options=options)
        return TFDSSource("folder", builder, split=split, transform=transform)


def create_prepared(
    *,
    split: str = "train",
    called: str = "",
    image_size: int | tuple[int, int] = 64,
    channels: int = 3,
    transform: str = "none",
    data_dir: str = "",
) -> TFDSSource:
    """Any set that `dig_jax.prepare NAME` has prepared, by its name there.

    So a set that is new to `dig_jax.prepare` needs no reader of its own.

    Args:
        split: train, or whatever splits it has.
        called: The name that it was prepared under, an entry of dig_jax.prepare.
        image_size: Side, or (rows, cols), in pixels.
        channels: 1 or 3.
        transform: The --transform that it was prepared with, where it has several.
        data_dir: TFDS's folder; "" is its default.
    """
    if not called:
        raise InputError(
            "Data set 'prepared' needs the name that it was prepared under: "
            "--config.data.called=NAME."
        )
    variant = "" if transform == "none" else transform
    options = f"--transform={transform}" if variant else ""
    with explain_remote_errors(data_dir):
        builder = find_prepared(called, data_dir, variant, options=options)
        source = TFDSSource(called, builder, split=split, transform=transform)
    check_shape(called, image_size, channels, source.image_shape)
    return source


class FolderVariant(NamedTuple):
    """One of the ways in which a folder of images was prepared."""

    transform: str
    image_shape: tuple[int, int, int]


def find_folders(data_dir: str) -> list[FolderVariant]:
    """All that `dig_jax.prepare folder` has prepared in a data_dir, and finished."""
    found = []
    with explain_remote_errors(data_dir):
        there = _data_dir(data_dir)
        for path in sorted(there.iterdir()) if there.is_dir() else ():
            named = re.fullmatch(r"dig_folder_(\w+)_(\d+)x(\d+)x(\d+)", path.name)
            if named and (path / PREPARED_VERSION / "dataset_info.json").exists():
                rows, cols, channels = (int(number) for number in named.groups()[1:])
                found.append(FolderVariant(named[1], (rows, cols, channels)))
    return found


def prepared_path(name: str, data_dir: str, variant: str = "") -> epath.Path:
    """Where `dig_jax.prepare` puts a data set, or will: local, or remote as in `gs://`.

    The names begin with dig_, because TFDS's own cifar10 stores its images otherwise.
    """
    full_name = f"dig_{name}_{variant}" if variant else f"dig_{name}"
    return _data_dir(data_dir) / full_name / PREPARED_VERSION


def find_prepared(
    name: str,
    data_dir: str,
    variant: str = "",
    *,
    tfds_name: str = "",
    options: str = "",
) -> tfds.core.DatasetBuilder:
    """A prepared data set in data_dir: ours or, failing that, TFDS's own.

    Args:
        name: Name in DATASETS.
        data_dir: "" is TFDS's default.
        variant: What tells several preparations of it apart.
        tfds_name: What TFDS calls it, with its config; "" if TFDS does not have it.
        options: Of the command that prepares this variant.

    Raises:
        InputError: It is not there, or not as array_record; the message says how to
            prepare it.
    """
    sought = [prepared_path(name, data_dir, variant)]
    if tfds_name:
        sought.append(_newest_version(_data_dir(data_dir) / tfds_name))
    found = [path for path in sought if (path / "dataset_info.json").exists()]
    advice = _say_how_to_prepare(name, data_dir, options)
    if not found:
        raise InputError(
            f"Data set {name!r} must be prepared before it can be read, and is not in "
            f"{' or '.join(map(str, sought))}. {advice}"
        )
    builder = open_prepared(found[0])
    formats = sorted(form.value for form in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise InputError(
            f"Data set {name!r} must be prepared as array_record, and is "
            f"{' and '.join(formats)} in {found[0]}. {advice}"
        )
    return builder


def _say_how_to_prepare(name: str, data_dir: str, options: str) -> str:
    is_remote = "://" in data_dir
    folder = "FOLDER" if is_remote else data_dir
    words = [
        f"python -m dig_jax.prepare {name} --source=FILE_OR_FOLDER",
        shlex.quote(f"--data_dir={folder}") if folder else "",
        options,
    ]
    copy = f"and copy what is then in FOLDER to {data_dir}\n" if is_remote else ""
    return (
        f"To prepare it:\n  {' '.join(filter(None, words))}\n{copy}"
        f"What FILE_OR_FOLDER may be: python -m dig_jax.prepare --help"
    )


def _data_dir(data_dir: str) -> epath.Path:
    from tensorflow_datasets.core import constants

    return open_data_dir(data_dir or constants.DATA_DIR)


def _newest_version(folder: epath.Path) -> epath.Path:
    """The newest of a data set's version folders, which TFDS calls 1.2.3."""
    if not folder.exists():
        return folder
    versions = [path for path in folder.iterdir() if _version_of(path)]
    return max(versions, key=_version_of, default=folder)


def _version_of(path: epath.Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    is_version = len(parts) == 3 and all(part.isdecimal() for part in parts)
    return tuple(int(part) for part in parts) if is_version else ()


def check_shape(
    name: str,
    image_size: int | tuple[int, int],
    channels: int,
    needed: tuple[int, int, int],
) -> None:
    """Raise InputError where a configuration's size is not the data set's."""
    rows, cols = (image_size,) * 2 if isinstance(image_size, int) else image_size
    if (rows, cols, channels) != needed:
        raise InputError(
            f"Data set {name!r} has images of {'x'.join(map(str, needed))} (rows, "
            f"cols, channels), got image_size={image_size}, channels={channels}."
        )
