"""Image files of one's own, in a folder, a zip or a tar.

IMAGES/*.png                   one split, train, without classes
IMAGES/cat/*.png, dog/*.png    one split with classes
IMAGES/train/..., test/...     splits, each of them either of the above

A folder that holds all the others, or all images, is gone through. Splits are known by
their usual names in any case. What has no meaning is refused, by name.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dig_jax.data.decode import is_image
from dig_jax.errors import InputError
from dig_jax.prepare.archives import FileSet, is_hidden, normalize_name, open_files
from dig_jax.prepare.splits import FilesSplit, RawDataset

# What is an image by its name; other files are looked into.
_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png"),
    *(".ppm", ".tif", ".tiff", ".webp"),
}
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
}
_NAMED_FILES = 5


class SplitFiles(NamedTuple):
    """The images of a split, all of them under one folder, and that folder's parts."""

    images: FileSet
    folder: tuple[str, ...]


def open_folder(source: Path) -> RawDataset:
    """Images by folder, their labels the sorted names of the folders that hold them.

    Names that are whole numbers are sorted as such.

    Raises:
        InputError: There are no images in it or in one of its classes, or images both
            inside and outside of classes, or folders that are neither all classes nor
            all splits, or classes that train does not have.
    """
    files = open_files(source)
    is_picture = _find_images(files)
    images = files.take(np.flatnonzero(is_picture).tolist())
    if not len(images):
        raise InputError(
            f"{files.root} must hold images ({', '.join(sorted(_SUFFIXES))}, or others "
            f"that Pillow reads), and has {len(files)} files of other sorts."
        )
    parts = _split_by_folder(files, images)
    classes = {s: _list_classes(s, part, files) for s, part in parts.items()}
    splits = {
        split: FilesSplit(part.images, _label(split, part, classes))
        for split, part in parts.items()
    }
    others = [n for n, yes in zip(files.names, is_picture, strict=True) if not yes]
    return RawDataset(
        splits=splits,
        class_names=classes["train"],
        encoded=True,
        source=f"images of {source.name}",
        left_out=_describe_others(others),
    )


def _find_images(files: FileSet) -> list[bool]:
    """Whether each file is an image, by its name or else by its content."""
    known = [PurePosixPath(name).suffix.lower() in _SUFFIXES for name in files.names]
    unknown = [i for i, is_known in enumerate(known) if not is_known]
    contents = files.take(unknown).read()
    for index, (_, content) in zip(unknown, contents, strict=True):
        known[index] = is_image(content)
    return known


def _describe_others(others: list[str]) -> str:
    """The files that are no images, in a line; "" if there are none."""
    if not others:
        return ""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "none" for name in others)
    endings = ", ".join(f"{ending} {count:,}" for ending, count in kinds.most_common())
    more = ", ..." if len(others) > _NAMED_FILES else ""
    return (
        f"{len(others):,} files that are no images (endings: {endings}): "
        f"{', '.join(others[:_NAMED_FILES])}{more}"
    )


def _split_by_folder(files: FileSet, images: FileSet) -> Mapping[str, SplitFiles]:
    wrapping = _wrapping_folder(files, images, [()])
    tops = {_part(name, len(wrapping)) for name in images.names}
    split_of = {top: _SPLIT_NAMES[top.lower()] for top in tops if _is_split(top)}
    tops |= _subfolders(files, wrapping)
    strangers = sorted(top or "images" for top in tops if not _is_split(top))
    # A train among cars and planes is a class, unless it has folders itself.
    inside = set().union(*(_subfolders(files, (*wrapping, top)) for top in split_of))
    if not split_of or (strangers and len(split_of) == 1 and not inside):
        _refuse_splits_of_classes(images, wrapping)
        return {"train": SplitFiles(images, wrapping)}
    if strangers:
        raise InputError(
            f"{images.root} has folders of splits ({', '.join(sorted(split_of))}) and "
            f"beside them {', '.join(strangers[:5])}. Splits are called "
            f"{', '.join(_SPLIT_NAMES)}: take away or rename the one or the other."
        )
    splits = list(split_of.values())
    if "train" not in splits or len(set(splits)) < len(splits):
        raise InputError(
            f"{images.root} must have a folder train, and at most one for each other "
            f"split; it has {', '.join(sorted(split_of))}."
        )
    roots = [(*wrapping, top) for top in split_of]
    inner = _wrapping_folder(files, images, roots)
    return {
        split: SplitFiles(
            images.under("/".join((*wrapping, top))), (*wrapping, top, *inner)
        )
        for top, split in split_of.items()
    }


def _wrapping_folder(
    files: FileSet, images: FileSet, roots: list[tuple[str, ...]]
) -> tuple[str, ...]:
    """The folders that hold everything below each of `roots`, from the outermost on.

    A single folder of images is one, too: one class tells nothing. A folder of a
    split's name is a split.
    """
    common: tuple[str, ...] = ()
    while True:
        folders = [(*root, *common) for root in roots]
        found = set().union(*(_subfolders(files, folder) for folder in folders))
        lie_here = {PurePosixPath(name).parts[:-1] for name in images.names}
        if len(found) != 1 or lie_here & set(folders):
            return common
        (only,) = found
        if _is_split(only):
            return common
        common = (*common, only)


def _subfolders(files: FileSet, folder: tuple[str, ...]) -> set[str]:
    """Names of the folders in a folder, also of those without a file."""
    depth = len(folder)
    paths = {PurePosixPath(name).parts[:-1] for name in files.names}
    found = {p[depth] for p in paths if len(p) > depth and p[:depth] == folder}
    if files.kind == "folder" and (there := files.root.joinpath(*folder)).is_dir():
        found |= {normalize_name(f.name) for f in there.iterdir() if f.is_dir()}
    return {name for name in found if not is_hidden(name)}


def _refuse_splits_of_classes(images: FileSet, wrapping: tuple[str, ...]) -> None:
    """Raise InputError for cat/train, cat/test: all would be trained on."""
    for name in images.names:
        inner = PurePosixPath(name).parts[len(wrapping) + 1 : -1]
        found = [part for part in inner if _is_split(part)]
        if found:
            raise InputError(
                f"{images.root} has a folder of a split, {found[0]}, inside of a "
                f"class: {name}. Put the splits outside, as in {found[0]}/"
                f"{_part(name, len(wrapping))}, or rename it."
            )


def _list_classes(split: str, part: SplitFiles, files: FileSet) -> tuple[str, ...]:
    classes = {_part(name, len(part.folder)) for name in part.images.names}
    inside = sorted(classes - {""}, key=_class_order)
    if "" in classes and inside:
        raise InputError(
            f"{files.root}, {split}: either every image is in the folder of its "
            f"class, or there are no folders; it has images outside and inside of "
            f"{', '.join(inside[:5])}."
        )
    empty = sorted(_subfolders(files, part.folder) - classes)
    if empty:
        raise InputError(
            f"{files.root}, {split}: every folder must hold images, and "
            f"{', '.join(empty[:5])} holds none."
        )
    return tuple(inside)


def _class_order(name: str) -> tuple[bool, int, str]:
    """Whole numbers first, in their order, then other names in theirs."""
    is_number = name.isascii() and name.isdecimal()
    return not is_number, int(name) if is_number else 0, name


def _label(
    split: str, part: SplitFiles, classes: Mapping[str, tuple[str, ...]]
) -> np.ndarray:
    found, known = classes[split], classes["train"]
    if set(found) - set(known) or bool(found) != bool(known):
        raise InputError(
            f"{part.images.root}: split {split} must have the classes of train "
            f"({', '.join(known) or 'none'}), and has {', '.join(found) or 'none'}."
        )
    number = {name: label for label, name in enumerate(known)}
    names = (_part(name, len(part.folder)) for name in part.images.names)
    return np.array([number.get(name, 0) for name in names], np.int64)


def _part(name: str, depth: int) -> str:
    """The folder at a depth in a file's name; "" if the file lies no deeper."""
    parts = PurePosixPath(name).parts[depth:-1]
    return parts[0] if parts else ""


def _is_split(folder: str) -> bool:
    return folder.lower() in _SPLIT_NAMES
