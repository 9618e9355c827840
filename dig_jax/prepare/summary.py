"""What is said of a data set that was prepared: counts, classes, how to go on."""

import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dig_jax.data import DATASETS
from dig_jax.data.prepared import find_folders
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.prepare.preparation import PreparedFolder, count_labels
from dig_jax.prepare.shards import ImageRule, ShardRecord
from dig_jax.prepare.sources import SOURCES
from dig_jax.prepare.splits import RawDataset
from dig_jax.reporting.images import choose_scale, image_grid, write_png

_SHEET_COLUMNS, _SHEET_IMAGES = 16, 64


def write_contact_sheet(name: str, made: PreparedFolder) -> tuple[Path, str]:
    """Some images of each split, read as training reads them; and the set's name."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(made.path)
    images, called = [], name
    for split in made.shards:
        source = TFDSSource(name, builder, split=split)
        called, count = source.name, min(_SHEET_IMAGES, len(source))
        rows = [source[index]["image"] for index in range(count)]
        blank = np.full_like(rows[0], 255)
        images += rows + [blank] * (-count % _SHEET_COLUMNS)
    size = max(images[0].shape[:2])
    path = made.path / "contact_sheet.png"
    grid = image_grid(np.stack(images), _SHEET_COLUMNS, scale=choose_scale(size))
    write_png(path, grid)
    return path, called


def summarize(
    name: str,
    raw: RawDataset,
    rule: ImageRule,
    made: PreparedFolder,
    sheet: Path,
) -> str:
    """The counts of a prepared set, its classes, and what was left out."""
    shape = "x".join(map(str, rule.shape))
    lines = [
        f"{raw.name or name} is prepared in {made.path}",
        f"  from       {raw.source}",
        f"  transform  {rule.transform}, to {shape}",
    ]
    converted, skipped = Counter(), []
    shards = dict(sorted(made.shards.items(), key=lambda item: item[0] != "train"))
    for split, records in shards.items():
        for record in records:
            converted.update(record.notes)
            skipped += record.skipped
        count = sum(record.num_records for record in records)
        published = SOURCES[name].published.get(split, count)
        number = f"{count:,} images"
        if count != published:
            number += f" (published: {published:,})"
        classes = "no classes"
        if rule.num_classes:
            counts = count_labels(records, rule.num_classes)
            classes = f"{rule.num_classes} classes of {min(counts)} to {max(counts)}"
        if split == "test" and raw.test_share:
            number += f" held out of train (--test_share={raw.test_share:g})"
        lines.append(f"  {split:<10} {number}, {classes}, {len(records)} files")
    if "test" not in shards and name == "folder":
        lines.append("  test       none: no score has real images to be judged by")
    lines += _list_classes(raw.class_names, shards)
    for what, count in sorted(converted.items()):
        lines.append(f"  converted  {count:,}: {what}")
    lines += [f"  left out   {raw.left_out}"] if raw.left_out else []
    lines += [f"  left out   {line}" for line in skipped[:10]]
    if len(skipped) > 10:
        lines.append(f"  left out   {len(skipped):,} in all, see metadata.json")
    return "\n".join([*lines, f"  look at    {sheet}"])


def _list_classes(
    names: Sequence[str], shards: Mapping[str, list[ShardRecord]]
) -> list[str]:
    """Each class's label, name and number of images in each split, in lines."""
    if not names:
        return []
    counts = [count_labels(r, len(names)) for r in shards.values()]
    listed = [
        f"{label} {name} ({' + '.join(map(str, numbers))})"
        for label, (name, *numbers) in enumerate(zip(names, *counts, strict=True))
    ]
    what = f"  classes    label name ({' + '.join(shards)} images): "
    return textwrap.wrap(what + ", ".join(listed), width=88, subsequent_indent=" " * 13)


def next_command(rule: ImageRule, called: str, data_dir: str) -> str:
    """What trains on a folder of one's own: it takes the rest from the data."""
    words = [f"--config={_config_file('folder.py')}"]
    if data_dir:
        words.append(f"--config.data.data_dir={Path(data_dir).expanduser().absolute()}")
    if len(find_folders(data_dir)) > 1:  # which one
        rows, cols, channels = rule.shape
        size = rows if rows == cols else f"{rows},{cols}"
        words += [
            f"--config.data.image_size={size}",
            f"--config.data.channels={channels}",
            f"--config.data.transform={rule.transform}",
        ]
    words.append(f"--workdir=runs/{called}")
    words = " ".join(map(shlex.quote, words))
    return f"To train on it:\n  python -m dig_jax.main {words}"


def _config_file(name: str) -> str:
    """A configuration of this project, as it is reached from here."""
    path = Path(__file__).parents[2] / "configs" / name
    if not path.is_file():
        return f"configs/{name}"
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def reading_flags(name: str, rule: ImageRule, data_dir: str, called: str = "") -> str:
    """What a configuration reads it by."""
    rows, cols, _ = rule.shape
    keys = {"name": name, "image_size": rows if rows == cols else f"{rows},{cols}"}
    if name not in DATASETS:
        keys["name"], called = "prepared", name
    if called:
        keys["called"] = called
    if data_dir:
        keys["data_dir"] = Path(data_dir).expanduser().absolute()
    if rule.shape[2] != 3:
        keys["channels"] = rule.shape[2]
    if SOURCES[name].transforms:
        keys["transform"] = rule.transform
    flags = " ".join(
        shlex.quote(f"--config.data.{key}={value}") for key, value in keys.items()
    )
    return f"  read with  {flags}"
