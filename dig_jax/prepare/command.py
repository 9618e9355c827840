"""Prepare a data set for reading, once: from official archives, folders, or TFDS.

    python -m dig_jax.prepare NAME --source=FILE_OR_FOLDER --data_dir=DIR [options]

Names, and what --source may be:
  cifar10     cifar-10-binary.tar.gz, or the folder in it
  svhn        the folder of train_32x32.mat, test_32x32.mat and, if wanted,
              extra_32x32.mat
  fashion_mnist, mnist, kmnist, or idx --name=NAME
              the folder, zip or tar of four IDX files, as the MNIST family has them:
              train-images-idx3-ubyte.gz, ..., also EMNIST's and QMNIST's, unpacked or
              not
  imagenet64  a folder with train/ and val/ (a folder for each synset; or val flat),
              with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or with the npz
              version of the downsampled archives (Imagenet64_train_part1_npz.zip, ...)
  celeba64    the folder of img_align_celeba.zip and list_eval_partition.txt
  folder      your own images: a folder, zip or tar; its subfolders are the classes, or
              train, test and validation, with classes in them or not

Without --source, TFDS downloads cifar10, svhn, fashion_mnist, mnist, kmnist, imagenet64
(downsampled) and celeba64, which needs TensorFlow: pip install 'dig_jax[prepare]'.

Options:
  --data_dir=DIR      where to write; TFDS's own folder if not given
  --transform=NAME    how images become squares of the size that is wanted:
                      imagenet64, folder: adm_center_crop (default), area
                      folder: also box, and none if they are already
                      celeba64: center_140 (default), center_148, center_89_121_128
  --image_size=N      folder: side of the square (default 64)
  --channels=N        folder: 3 (default) or 1
  --name=NAME         idx: what it is called in scores, and data.called; --name=mnist is
                      the same as mnist
  --class_names=A,B   idx: a name for each label (default: known ones, or numbers)
  --num_workers=N     processes that decode image files (default: one for each core)
  --skip_bad          leave out image files that cannot be used, instead of stopping

Stopped or killed, the same command goes on where it stopped. Exit codes: 0 done, 78 bad
input, 130 stopped by Ctrl-C.
"""

import argparse
import os
import re
import shlex
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dig_jax.data.prepared import prepared_path
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, InputError
from dig_jax.prepare.celeba import open_celeba
from dig_jax.prepare.cifar10 import open_cifar10
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.from_tfds import download_with_tfds, open_tfds_celeba
from dig_jax.prepare.idx import KNOWN_SETS, open_idx
from dig_jax.prepare.imagenet import open_imagenet
from dig_jax.prepare.preparation import PreparedFolder, count_labels, prepare
from dig_jax.prepare.resize import CELEBA_TRANSFORMS, IMAGENET_TRANSFORMS
from dig_jax.prepare.shards import ImageRule, ShardRecord
from dig_jax.prepare.splits import RawDataset
from dig_jax.prepare.svhn import open_svhn
from dig_jax.reporting.images import choose_scale, image_grid, write_png
from dig_jax.reporting.progress import Progress


@dataclass(frozen=True)
class PreparedSource:
    """A data set that can be prepared.

    Attributes:
        open: Its images, from a file or folder; those of IDX files with class_names.
        tfds_name: What TFDS downloads; "" if it does not have it.
        image_size: Side of the square; None for what --image_size says.
        transforms: How images become squares, the default first; () for as they are.
        published: Images of each split, if nothing is missing.
    """

    open: Callable[..., RawDataset]
    tfds_name: str = ""
    image_size: int | None = None
    transforms: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)


SOURCES = {
    "celeba64": PreparedSource(
        open_celeba,
        tfds_name="celeb_a",
        image_size=64,
        transforms=tuple(CELEBA_TRANSFORMS),
        published={"train": 162_770, "validation": 19_867, "test": 19_962},
    ),
    "cifar10": PreparedSource(
        open_cifar10,
        tfds_name="cifar10",
        image_size=32,
        published={"train": 50_000, "test": 10_000},
    ),
    "folder": PreparedSource(
        open_folder, transforms=(*IMAGENET_TRANSFORMS, "box", "none")
    ),
    **{
        name: PreparedSource(
            partial(open_idx, called=name),
            tfds_name=name,
            image_size=28,
            published={"train": 60_000, "test": 10_000},
        )
        for name in KNOWN_SETS
    },
    "idx": PreparedSource(open_idx),
    "imagenet64": PreparedSource(
        open_imagenet,
        tfds_name="imagenet_resized/64x64",
        image_size=64,
        transforms=tuple(IMAGENET_TRANSFORMS),
        published={"train": 1_281_167, "validation": 50_000},
    ),
    "svhn": PreparedSource(
        open_svhn,
        tfds_name="svhn_cropped",
        image_size=32,
        published={"train": 73_257, "test": 26_032, "extra": 531_131},
    ),
}
_SHEET_COLUMNS, _SHEET_IMAGES = 16, 64


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        if options is not None:
            _prepare(options)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _prepare(options: argparse.Namespace) -> None:
    name = options.name
    raw = _open(options)
    if raw is None:
        return
    rule = _choose_rule(options, raw)
    variant = ""
    if SOURCES[name].transforms:
        variant = rule.transform
    if name == "folder":
        variant += "_" + "x".join(map(str, rule.shape))
    if name == "idx":
        variant = options.called
    path = Path(prepared_path(name, options.data_dir, variant))
    total = sum(len(split) for split in raw.splits.values())
    done = 0
    with Progress(total, description="prepare", unit="image") as progress:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done)

        advance(0)
        made = prepare(
            raw, path, rule, advance=advance, num_workers=options.num_workers
        )
    sheet = _write_contact_sheet(name, made)
    print(_summarize(options, raw, rule, made, sheet))


def _open(options: argparse.Namespace) -> RawDataset | None:
    """What is to be prepared; None if TFDS has done it all."""
    name = options.name
    if options.source:
        if name == "folder" and options.data_dir:
            _check_apart(Path(options.source), Path(options.data_dir))
        print(f"Reading what is in {options.source} ...", flush=True)
        return SOURCES[name].open(Path(options.source).expanduser(), **_given(options))
    if not SOURCES[name].tfds_name:
        raise InputError(f"{name} needs --source, the images to prepare.")
    if name == "imagenet64" and options.transform not in ("", "box"):
        raise InputError(
            f"--transform={options.transform} needs ImageNet's own images, which TFDS "
            f"cannot download: name their folder with --source."
        )
    builder = download_with_tfds(SOURCES[name].tfds_name, options.data_dir)
    if name == "celeba64":
        return open_tfds_celeba(builder)
    print(f"{name} is prepared in {builder.data_path}.")
    return None


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Class names, if some were given, as a keyword for `open_idx`."""
    if not options.class_names:
        return {}
    names = tuple(map(str.strip, options.class_names.split(",")))
    if options.name not in ("idx", *KNOWN_SETS):
        raise InputError(f"--class_names is for IDX files, not {options.name}.")
    if "" in names or len(set(names)) < len(names):
        raise InputError(
            f"--class_names needs a name for each label, no two alike, got "
            f"{options.class_names!r}."
        )
    return {"class_names": names}


def _choose_rule(options: argparse.Namespace, raw: RawDataset) -> ImageRule:
    """What images become, and InputError for options that do not fit the data set."""
    name, source = options.name, SOURCES[options.name]
    if name != "folder" and (options.image_size, options.channels) != (None, None):
        raise InputError(f"--image_size and --channels are for folder, not {name}.")
    size = source.image_size or options.image_size or 64
    choices = source.transforms or ("none",)
    if not raw.encoded:
        choices = (raw.transform,)
    transform = options.transform or choices[0]
    if transform not in choices:
        raise InputError(
            f"--transform for {raw.source} must be {' or '.join(choices)}, got "
            f"{transform}."
        )
    return ImageRule(
        shape=raw.image_shape or (size, size, options.channels or 3),
        transform=transform,
        num_classes=len(raw.class_names),
        upright=name == "folder",
        skip_bad=options.skip_bad,
    )


def _write_contact_sheet(name: str, made: PreparedFolder) -> Path:
    """Some images of each split, read as training reads them."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(made.path)
    images = []
    for split in made.shards:
        source = TFDSSource(name, builder, split=split)
        count = min(_SHEET_IMAGES, len(source))
        rows = [source[index]["image"] for index in range(count)]
        blank = np.full_like(rows[0], 255)
        images += rows + [blank] * (-count % _SHEET_COLUMNS)
    size = images[0].shape[0]
    path = made.path / "contact_sheet.png"
    grid = image_grid(np.stack(images), _SHEET_COLUMNS, scale=choose_scale(size))
    write_png(path, grid)
    return path


def _summarize(
    options: argparse.Namespace,
    raw: RawDataset,
    rule: ImageRule,
    made: PreparedFolder,
    sheet: Path,
) -> str:
    name, data_dir = options.name, options.data_dir
    shape = "x".join(map(str, rule.shape))
    lines = [
        f"{options.called or name} is prepared in {made.path}",
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
        lines.append(f"  {split:<10} {number}, {classes}, {len(records)} files")
    lines += _list_classes(raw.class_names, shards)
    for what, count in sorted(converted.items()):
        lines.append(f"  converted  {count:,}: {what}")
    lines += [f"  left out   {raw.left_out}"] if raw.left_out else []
    lines += [f"  left out   {line}" for line in skipped[:10]]
    if len(skipped) > 10:
        lines.append(f"  left out   {len(skipped):,} in all, see metadata.json")
    rows, cols, _ = rule.shape
    keys = {"name": name, "image_size": rows if rows == cols else f"{rows},{cols}"}
    if options.called:
        keys["called"] = options.called
    if data_dir:
        keys["data_dir"] = Path(data_dir).expanduser().absolute()
    if rule.shape[2] != 3:
        keys["channels"] = rule.shape[2]
    if SOURCES[name].transforms:
        keys["transform"] = rule.transform
    flags = " ".join(
        shlex.quote(f"--config.data.{key}={value}") for key, value in keys.items()
    )
    return "\n".join([*lines, f"  look at    {sheet}", f"  read with  {flags}"])


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


def _check_apart(source: Path, data_dir: Path) -> None:
    """Raise InputError where what is written would be read as images the next time."""
    source, data_dir = (p.expanduser().resolve() for p in (source, data_dir))
    if source.is_dir() and (
        source.is_relative_to(data_dir) or data_dir.is_relative_to(source)
    ):
        raise InputError(
            f"--data_dir must lie apart from --source's images, or what is written "
            f"there would be read as images the next time; got {data_dir} and {source}."
        )


def _parse(arguments: list[str]) -> argparse.Namespace | None:
    """The options; None if only help was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.prepare", add_help=False, allow_abbrev=False
    )
    parser.error = _refuse  # pyright: ignore[reportAttributeAccessIssue]
    parser.add_argument("name")
    parser.add_argument("--source", default="")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--transform", default="")
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--name", dest="called", default="")
    parser.add_argument("--class_names", default="")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--skip_bad", action="store_true")
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return None
    options = parser.parse_args(arguments)
    if options.name == "idx" and options.called in KNOWN_SETS:
        options.name, options.called = options.called, ""
    if options.name not in SOURCES:
        raise InputError(
            f"Unknown data set {options.name!r}. Available: {', '.join(SOURCES)}."
        )
    if "://" in options.data_dir or "://" in options.source:
        raise InputError(
            "Data sets are prepared on a local disk: copy the finished folder to a "
            "bucket, and read it from there with data_dir=gs://..."
        )
    if options.called and options.name != "idx":
        raise InputError(f"--name is for idx, not {options.name}.")
    if not re.fullmatch(r"\w*", options.called):
        raise InputError(
            f"--name is made of letters, digits and _, as files are called by it, got "
            f"{options.called!r}."
        )
    for key, choices in (("image_size", range(1, 4097)), ("channels", (1, 3))):
        value = getattr(options, key)
        if value is not None and value not in choices:
            wanted = "1 or 3" if key == "channels" else "from 1 to 4096"
            raise InputError(f"--{key} must be {wanted}, got {value}.")
    if options.num_workers < 0:
        raise InputError(
            f"--num_workers must not be negative, got {options.num_workers}."
        )
    return options


def _refuse(message: str) -> None:
    raise InputError(f"{message}. See python -m dig_jax.prepare --help.")
