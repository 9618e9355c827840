"""CelebA's aligned faces: `img_align_celeba.zip` and `list_eval_partition.txt`."""

from pathlib import Path, PurePosixPath

import numpy as np

from dig_jax.errors import InputError
from dig_jax.prepare.archives import FileSet, open_files
from dig_jax.prepare.splits import FilesSplit, RawDataset

_SPLITS = ("train", "validation", "test")  # 0, 1 and 2 in the list
_LIST = "list_eval_partition.txt"
_IMAGES = "img_align_celeba"


def open_celeba(source: Path) -> RawDataset:
    """CelebA from the folder of its files; the zip may be unpacked.

    Raises:
        InputError: Images or the list are missing, or they do not fit each other.
    """
    list_path = source / _LIST
    places = [source / f"{_IMAGES}.zip", source / _IMAGES]
    found = [path for path in places if path.exists()]
    if not found or not list_path.is_file():
        raise InputError(
            f"--source for celeba64 needs a folder with {_IMAGES}.zip (or the folder "
            f"{_IMAGES}) and {_LIST}; {source} lacks one of them."
        )
    files = open_files(found[0])
    return RawDataset(
        splits=_read_splits(files, list_path),
        class_names=(),
        encoded=True,
        source=f"CelebA, aligned and cropped ({found[0].name})",
    )


def _read_splits(files: FileSet, list_path: Path) -> dict[str, FilesSplit]:
    place_of = {PurePosixPath(name).name: i for i, name in enumerate(files.names)}
    members: dict[str, list[int]] = {split: [] for split in _SPLITS}
    lines = list_path.read_text("ascii", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise InputError(
                f"{list_path}, line {number} must be a file's name and 0, 1 or 2, and "
                f"is {line[:80]!r}."
            )
        if words[0] not in place_of:
            raise InputError(
                f"{list_path} names {words[0]}, which {files.root} does not have."
            )
        members[_SPLITS[int(words[1])]].append(place_of[words[0]])
    empty = [split for split in _SPLITS if not members[split]]
    if empty:
        raise InputError(f"{list_path} has no images for {', '.join(empty)}.")
    return {
        split: FilesSplit(files.take(indices), np.zeros(len(indices), np.int64))
        for split, indices in members.items()
    }
