"""Image files of one's own, in a folder, a zip or a tar.

IMAGES/*.png                   one split, train, without classes
IMAGES/cat/*.png, dog/*.png    one split with classes
IMAGES/train/..., test/...     splits, each of them either of the above
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dig_jax.errors import InputError
from dig_jax.prepare.archives import FileSet, open_files
from dig_jax.prepare.splits import FilesSplit, RawDataset

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
}


class SplitFiles(NamedTuple):
    """The images of a split, and the folder in their names that is the split's own."""

    images: FileSet
    folder: str


def open_folder(source: Path) -> RawDataset:
    """Images by folder, their labels the sorted names of the folders that hold them.

    Raises:
        InputError: There are no images in it or in one of its classes, or images both
            inside and outside of classes, or classes that train does not have.
    """
    parts = _split_by_folder(open_files(source))
    class_names = _list_classes("train", parts["train"])
    splits = {
        split: FilesSplit(part.images, _label(split, part, class_names))
        for split, part in parts.items()
    }
    return RawDataset(
        splits=splits,
        class_names=class_names,
        encoded=True,
        source=f"images of {source.name}",
    )


def _split_by_folder(files: FileSet) -> Mapping[str, SplitFiles]:
    images = files.take(
        [i for i, n in enumerate(files.names) if n.lower().endswith(_SUFFIXES)]
    )
    if not len(images):
        raise InputError(
            f"{files.root} must hold images ({', '.join(_SUFFIXES)}), and has "
            f"{len(files)} files of other sorts."
        )
    tops = sorted({PurePosixPath(name).parts[0] for name in images.names})
    if not set(tops) <= set(_SPLIT_NAMES):
        return {"train": SplitFiles(images, "")}
    splits = [_SPLIT_NAMES[top] for top in tops]
    if "train" not in splits or len(set(splits)) < len(splits):
        raise InputError(
            f"{files.root} must have a folder train, and at most one for each other "
            f"split; it has {', '.join(tops)}."
        )
    return {_SPLIT_NAMES[top]: SplitFiles(images.under(top), top) for top in tops}


def _list_classes(split: str, part: SplitFiles) -> tuple[str, ...]:
    images = part.images
    classes = {_class_of(name, part.folder) for name in images.names}
    inside = sorted(classes - {""})
    if "" in classes and inside:
        raise InputError(
            f"{images.root}, {split}: either every image is in the folder of its "
            f"class, or there are no folders; it has images outside and inside of "
            f"{', '.join(inside[:5])}."
        )
    if images.kind == "folder":
        folders = (images.root / part.folder).iterdir()
        names = {f.name for f in folders if f.is_dir() and not f.name.startswith(".")}
        empty = sorted(names - classes)
        if empty:
            raise InputError(
                f"{images.root}, {split}: every folder must hold images, and "
                f"{', '.join(empty[:5])} holds none."
            )
    return tuple(inside)


def _label(split: str, part: SplitFiles, class_names: tuple[str, ...]) -> np.ndarray:
    found = _list_classes(split, part)
    unknown = set(found) - set(class_names)
    if unknown or bool(found) != bool(class_names):
        raise InputError(
            f"{part.images.root}: split {split} must have the classes of train "
            f"({', '.join(class_names) or 'none'}), and has "
            f"{', '.join(found) or 'none'}."
        )
    number = {name: label for label, name in enumerate(class_names)}
    classes = (_class_of(name, part.folder) for name in part.images.names)
    return np.array([number.get(name, 0) for name in classes], np.int64)


def _class_of(name: str, split_folder: str) -> str:
    """The topmost folder of an image below its split's own; "" if there is none."""
    parts = PurePosixPath(name).parts[1 if split_folder else 0 : -1]
    return parts[0] if parts else ""
