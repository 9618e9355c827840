"""Keys that a configuration leaves to the data: shape, channels, classes, patches.

Where they are None, the prepared images say them. It is done once, at the door, so that
config.json has the values that a run was trained with.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dig_jax.config import with_values
from dig_jax.data import DATASETS
from dig_jax.data.prepared import FolderVariant, find_folders
from dig_jax.errors import InputError
from dig_jax.interfaces import ImageSource
from dig_jax.options.keys import call_with_section, keys_of

DATA_KEYS = ("image_size", "channels", "transform")
BACKBONE_KEYS = ("num_classes", "patch_size", "patch_sizes")
FEWEST_PATCHES, MOST_PATCHES = 16, 256


def fit_to_data(config: ConfigDict) -> ConfigDict:
    """The configuration with what the data say in place of None.

    Of `folder`, `data.image_size`, `data.channels` and `data.transform` are those that
    it was prepared with; `backbone.num_classes` is the number of its classes;
    `backbone.patch_size` is that of `choose_patch_size`, and `backbone.patch_sizes` are
    it and its double. A configuration without None is returned as it is, and no data
    are looked for.

    Raises:
        InputError: They are not prepared, or in several ways that all fit.
    """
    if not any(_left_out(config, section) for section in ("data", "backbone")):
        return config
    values: dict[str, Any] = {}
    data = {k: v for k, v in config.data.to_dict().items() if v is not None}
    if data.get("name") == "folder" and len(data.keys() & DATA_KEYS) < len(DATA_KEYS):
        variant = _choose_folder(data)
        rows, cols, channels = variant.image_shape
        data |= {
            "image_size": rows if rows == cols else (rows, cols),
            "channels": channels,
            "transform": variant.transform,
        }
    for key in _left_out(config, "data"):
        if key not in data and data["name"] in DATASETS:
            default = keys_of(DATASETS[data["name"]]).get(key)
            if default is None or not default.has_default:
                raise InputError(
                    f"config.data.{key} must be given: {data['name']} does not say it."
                )
            data[key] = default.default
        values[f"data.{key}"] = data.get(key)
    missing = _left_out(config, "backbone")
    if "num_classes" in missing:
        values["backbone.num_classes"] = _open(data).num_classes
    size = data.get("image_size")
    if size is not None and {"patch_size", "patch_sizes"} & set(missing):
        sides = (size, size) if isinstance(size, int) else tuple(size)
        patch = choose_patch_size(sides, doubled="patch_sizes" in missing)
        patches = {"patch_size": patch, "patch_sizes": (patch, 2 * patch)}
        if max(patches["patch_sizes"]) > min(sides):
            patches["patch_sizes"] = (patch,)
        values |= {f"backbone.{k}": v for k, v in patches.items() if k in missing}
    return with_values(config, values)


def choose_patch_size(sides: tuple[int, int], *, doubled: bool) -> int:
    """The smallest patch, from 2 pixels on, that leaves 16 to 256 patches.

    Where no size leaves so many, the largest that leaves at least 16; 1 if none does.

    Args:
        sides: (rows, cols) of the image.
        doubled: Whether patches of twice the side are to fit too, if there are such.
    """
    whole = [p for p in range(1, min(sides) + 1) if all(s % p == 0 for s in sides)]
    even = [p for p in whole if all(s % (2 * p) == 0 for s in sides)]
    fitting = even if doubled and even else whole
    number = {p: (sides[0] // p) * (sides[1] // p) for p in fitting}
    enough = [p for p in fitting if number[p] >= FEWEST_PATCHES]
    few = [p for p in enough if p > 1 and number[p] <= MOST_PATCHES]
    return min(few) if few else max(enough, default=1)


def _left_out(config: ConfigDict, section: str) -> list[str]:
    """Keys of a section that are there, and None."""
    keys = DATA_KEYS if section == "data" else BACKBONE_KEYS
    values = config[section]
    return [key for key in keys if key in values and values[key] is None]


def _choose_folder(data: Mapping[str, Any]) -> FolderVariant:
    """The one way in which a folder was prepared that has the keys that are given."""
    data_dir = data.get("data_dir", "")
    found = find_folders(data_dir)
    size = data.get("image_size")
    sides = (size, size) if isinstance(size, int) else size
    fitting = [
        variant
        for variant in found
        if sides in (None, variant.image_shape[:2])
        and data.get("channels") in (None, variant.image_shape[2])
        and data.get("transform") in (None, variant.transform)
    ]
    if len(fitting) == 1:
        return fitting[0]
    there = "; ".join(
        f"image_size={','.join(map(str, v.image_shape[:2]))} "
        f"channels={v.image_shape[2]} transform={v.transform}"
        for v in fitting or found
    )
    place = f"config.data.data_dir={data_dir!r}"
    if not found:
        raise InputError(
            f"{place} must be where a folder of images was prepared, and there is none "
            f"in it. To prepare one:\n  python -m dig_jax.prepare folder "
            f"--source=FOLDER_OF_IMAGES "
            f"{shlex.quote(f'--data_dir={data_dir}') if data_dir else '--data_dir=DIR'}"
        )
    if not fitting:
        raise InputError(f"{place} has no such images. Prepared there: {there}.")
    raise InputError(
        f"{place} has a folder prepared in several ways: {there}. Say which by "
        f"--config.data.image_size, channels and transform."
    )


def _open(data: Mapping[str, Any]) -> ImageSource:
    """The training images."""
    name = data.get("name", "")
    if name not in DATASETS:
        raise InputError(
            f"Unknown config.data.name {name!r}. Available: "
            f"{', '.join(sorted(DATASETS))}."
        )
    own = keys_of(DATASETS[name])
    section = {key: value for key, value in data.items() if key in own}
    return call_with_section("data", DATASETS[name], section, split="train")
