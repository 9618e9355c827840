"""SVHN's cropped digits: `train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`.

MATLAB's version 5 format: X uint8 [row, col, rgb, image], y [image, 1] from 1 to 10,
where 10 is the digit 0.
"""

from pathlib import Path

import numpy as np

from dig_jax.errors import InputError
from dig_jax.prepare.splits import ArraySplit, RawDataset

_MAX_IMAGES = 1_000_000


def open_svhn(source: Path) -> RawDataset:
    """SVHN in memory, from the folder of its files; extra (3 GB) need not be there.

    Raises:
        InputError: There is no train or test, or a file is not what it should be.
    """
    paths = {split: source / f"{split}_32x32.mat" for split in ("train", "test")}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"--source for svhn needs the folder of train_32x32.mat, test_32x32.mat "
            f"and, if wanted, extra_32x32.mat; {source} lacks {', '.join(missing)}."
        )
    if (source / "extra_32x32.mat").is_file():
        paths["extra"] = source / "extra_32x32.mat"
    return RawDataset(
        splits={split: _read_split(path) for split, path in paths.items()},
        class_names=tuple(str(digit) for digit in range(10)),
        encoded=False,
        source="SVHN, cropped digits: " + ", ".join(p.name for p in paths.values()),
    )


def _read_split(path: Path) -> ArraySplit:
    from scipy.io import loadmat, whosmat

    try:
        found = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        shape, kind = found.get("X", ((), ""))
        if len(shape) != 4 or shape[:3] != (32, 32, 3) or kind != "uint8":
            raise InputError(
                f"{path} needs X, uint8 of 32x32x3xN, and has {found.get('X', 'none')}."
            )
        if not 0 < shape[3] <= _MAX_IMAGES or found.get("y", ((),))[0] != (shape[3], 1):
            raise InputError(
                f"{path} needs y, one label for each of X's {shape[3]} images (from 1 "
                f"to {_MAX_IMAGES}), and has {found.get('y', 'none')}."
            )
        content = loadmat(path, variable_names=("X", "y"))
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no MATLAB 5 file that can be read: {error}."
        ) from (error)
    labels = content["y"][:, 0].astype(np.int64)
    if labels.min() < 1 or labels.max() > 10:
        raise InputError(
            f"{path} needs labels from 1 to 10, and has {labels.min()}..{labels.max()}."
        )
    images = np.moveaxis(content["X"], -1, 0)  # [image, row, col, rgb]
    return ArraySplit(str(path), images, labels % 10)
