"""ImageNet (ILSVRC2012) as it is handed out: folders, tars, or downsampled archives.

    train/n01440764/*.JPEG, val/n01440764/*.JPEG or val/ILSVRC2012_val_00000001.JPEG
    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar
    Imagenet64_train_part1_npz.zip and the like

Labels of images are positions in the sorted list of the 1,000 synsets; those of the
validation images are TFDS's own list of them, so no devkit is needed. Downsampled
archives number their classes in an order of their own.
"""

import re
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

from dig_jax.errors import InputError
from dig_jax.prepare.archives import MAX_FILE_BYTES, FileSet, open_files, tar_members
from dig_jax.prepare.imagenet_npz import find_npz_archives, open_npz_archives
from dig_jax.prepare.splits import FilesSplit, RawDataset

_TRAIN_TAR = "ILSVRC2012_img_train.tar"
_VALIDATION_TAR = "ILSVRC2012_img_val.tar"
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_MAX_CLASS_TAR_BYTES = 4 * 2**30
_NEEDED = (
    f"folders train and val, {_TRAIN_TAR} and {_VALIDATION_TAR}, or the npz version of "
    f"Imagenet64_train_part1, Imagenet64_train_part2 and Imagenet64_val (zip)"
)


def open_imagenet(source: Path) -> RawDataset:
    """ImageNet from whatever of it is in a folder.

    Raises:
        InputError: Neither images nor downsampled archives are there, or something is
            among them that should not be.
    """
    if not source.is_dir():
        raise InputError(
            f"--source for imagenet64 needs a folder with {_NEEDED}; {source} is none."
        )
    archives = find_npz_archives(source)
    if archives:
        return open_npz_archives(archives, _read_list("resized"))
    synsets = _read_list("sorted")
    train = _open_train(source)
    train_split = FilesSplit(train, _labels_by_folder(train, synsets))
    validation = _open_validation(source)
    labels = _label_validation(validation, synsets)
    return RawDataset(
        splits={"train": train_split, "validation": FilesSplit(validation, labels)},
        class_names=synsets,
        encoded=True,
        source="ILSVRC2012, " + " and ".join({train.kind: 0, validation.kind: 0}),
    )


def _open_train(source: Path) -> FileSet:
    if (source / _TRAIN_TAR).is_file():
        return _list_tar_of_tars(source / _TRAIN_TAR)
    if (source / "train").is_dir():
        return _images_of(open_files(source / "train"))
    raise InputError(f"{source} needs {_NEEDED}; it has no training images.")


def _open_validation(source: Path) -> FileSet:
    if (source / _VALIDATION_TAR).is_file():
        return _images_of(open_files(source / _VALIDATION_TAR))
    if (source / "val").is_dir():
        return _images_of(open_files(source / "val"))
    raise InputError(f"{source} needs {_NEEDED}; it has no validation images.")


def _images_of(files: FileSet) -> FileSet:
    images = files.take([i for i, n in enumerate(files.names) if n.endswith(".JPEG")])
    if not len(images):
        raise InputError(f"{files.root} has no .JPEG files.")
    return images


def _list_tar_of_tars(source: Path) -> FileSet:
    """The images in a tar of a tar for each class, found where they lie in the file."""
    names, sizes, offsets = [], [], []
    try:
        with tarfile.open(source, "r:") as archive:
            for outer in tar_members(archive, source, _MAX_CLASS_TAR_BYTES):
                synset = outer.name.removesuffix(".tar")
                with tarfile.open(fileobj=archive.extractfile(outer)) as inner:
                    place = f"{source}:{outer.name}"
                    for image in tar_members(inner, place, MAX_FILE_BYTES):
                        names.append(f"{synset}/{image.name}")
                        sizes.append(image.size)
                        offsets.append(outer.offset_data + image.offset_data)
    except tarfile.TarError as error:
        raise InputError(f"{source} must be a tar of tars: {error}.") from error
    files = FileSet(
        source, "tar", tuple(names), tuple(names), tuple(sizes), tuple(offsets)
    )
    return _images_of(files)


def _labels_by_folder(files: FileSet, synsets: tuple[str, ...]) -> np.ndarray:
    number = {synset: label for label, synset in enumerate(synsets)}
    labels = np.empty(len(files), np.int64)
    for index, name in enumerate(files.names):
        synset = PurePosixPath(name).parent.name
        if synset not in number:
            raise InputError(
                f"{files.place(name)} must be in a folder with the name of one of "
                f"ILSVRC2012's 1,000 synsets, as in n01440764/x.JPEG. For a choice of "
                f"your own classes prepare `folder`."
            )
        labels[index] = number[synset]
    return labels


def _label_validation(files: FileSet, synsets: tuple[str, ...]) -> np.ndarray:
    matches = [_VALIDATION_NAME.fullmatch(n) for n in files.names if "/" not in n]
    if len(matches) < len(files):  # some are in folders: then all must be
        return _labels_by_folder(files, synsets)
    number = {synset: label for label, synset in enumerate(synsets)}
    in_order = _read_list("validation")
    labels = np.empty(len(files), np.int64)
    for index, match in enumerate(matches):
        place = int(match[1]) if match else 0
        if not 1 <= place <= len(in_order):
            raise InputError(
                f"{files.place(files.names[index])} must be named as in "
                f"ILSVRC2012_val_00000001.JPEG, or be in the folder of its synset."
            )
        labels[index] = number[in_order[place - 1]]
    return labels


def _read_list(which: str) -> tuple[str, ...]:
    """A list of synsets that TFDS carries."""
    import tensorflow_datasets as tfds

    path = {
        "sorted": "datasets/imagenet2012/labels.txt",
        "validation": "datasets/imagenet2012/validation_labels.txt",
        "resized": "image_classification/imagenet_resized_labels.txt",
    }[which]
    return tuple(tfds.core.tfds_path(path).read_text().split())
