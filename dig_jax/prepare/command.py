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
  latents     a data set that is prepared already, for an autoencoder; its options:
              python -m dig_jax.prepare latents --help

Without --source, TFDS downloads cifar10, svhn, fashion_mnist, mnist, kmnist, imagenet64
(downsampled) and celeba64, which needs TensorFlow: pip install tensorflow.

Options:
  --data_dir=DIR      where to write; TFDS's own folder if not given
  --transform=NAME    how images become squares of the size that is wanted:
                      imagenet64, folder: adm_center_crop (default), area
                      folder: also box, and none if they are already
                      celeba64: center_140 (default), center_148, center_89_121_128
  --image_size=N      folder: side of the square (default 64), or ROWS,COLS
  --channels=N        folder: 3 (default) or 1
  --test_share=X      folder without test images: hold out this share of each class's
                      images (default 0.1; 0 for none), by which scores are judged
  --name=NAME         what it is called in scores; folder: as the source if not given;
                      idx: also data.called, and --name=mnist is the same as mnist
  --class_names=A,B   idx: a name for each label (default: known ones, or numbers)
  --num_workers=N     processes that decode image files (default: one for each core)
  --skip_bad          leave out image files that cannot be used, instead of stopping

Stopped or killed, the same command goes on where it stopped. Exit codes: 0 done, 78 bad
input, 130 stopped by Ctrl-C.
"""

import argparse
import inspect
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from dig_jax.data.prepared import prepared_path
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, InputError
from dig_jax.files.shown import say
from dig_jax.prepare.from_tfds import download_with_tfds, open_tfds_celeba
from dig_jax.prepare.idx import KNOWN_SETS
from dig_jax.prepare.preparation import prepare_shown
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.sources import SOURCES
from dig_jax.prepare.splits import FilesSplit, RawDataset
from dig_jax.prepare.summary import (
    next_command,
    reading_flags,
    summarize,
    write_contact_sheet,
)

_SIDES = range(1, 4097)
TEST_SHARE = 0.1
"""Of one's own images, where they have no test images of their own."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["latents"]:
            from dig_jax.prepare import latents  # which needs JAX

            latents.main(arguments[1:])
        elif (options := _parse(arguments)) is not None:
            _prepare(options)
    except (InputError, OSError) as error:  # a full disk
        say(f"Error: {error}", error=True)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.", error=True)
        return EXIT_INTERRUPTED
    return EXIT_DONE


def _prepare(options: argparse.Namespace) -> None:
    name = options.name
    raw = _open(options)
    if raw is None:
        return
    if name == "folder":
        raw = _hold_out(raw, options.test_share)
        raw = raw._replace(name=options.called or _name_of(Path(options.source)))
    if name == "idx":
        raw = raw._replace(name=options.called)
    rule = _choose_rule(options, raw)
    variant = ""
    if SOURCES[name].transforms:
        variant = rule.transform
    if name == "folder":
        variant += "_" + "x".join(map(str, rule.shape))
    if name == "idx":
        variant = options.called
    path = Path(prepared_path(name, options.data_dir, variant))
    made = prepare_shown(raw, path, rule, "prepare", num_workers=options.num_workers)
    sheet, called = write_contact_sheet(name, made)
    if options.called and called != options.called:
        raise InputError(
            f"{made.path} was prepared before, under the name {called}, which its "
            f"scores carry. Leave --name out, or delete it first."
        )
    said = summarize(name, raw._replace(name=called), rule, made, sheet)
    say(said)
    say(
        next_command(rule, called, options.data_dir)
        if name == "folder"
        else reading_flags(name, rule, options.data_dir, options.called)
    )


def _hold_out(raw: RawDataset, share: float | None) -> RawDataset:
    """The images with a test split, held out of train where they have none.

    Raises:
        InputError: They have one, and a share was asked for.
    """
    if "test" in raw.splits:
        if share:
            raise InputError(
                f"--test_share={share:g} holds test images out of train, and "
                f"{raw.source} have a folder of test images: leave it out."
            )
        return raw
    share, train = TEST_SHARE if share is None else share, raw.splits["train"]
    assert isinstance(train, FilesSplit)
    train, test = train.hold_out(share)
    if test is None:
        return raw
    rest = {name: split for name, split in raw.splits.items() if name != "train"}
    splits = {"train": train, "test": test, **rest}
    return raw._replace(splits=splits, test_share=share)


def _name_of(source: Path) -> str:
    """What a data set is called after its folder or archive."""
    stem = source.expanduser().resolve().name
    stem = re.sub(r"(\.tar)?\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz)$", "", stem, flags=re.I)
    stem = unicodedata.normalize("NFC", stem)
    return re.sub(r"[^\w-]+", "_", stem).strip("_-") or "folder"


def _open(options: argparse.Namespace) -> RawDataset | None:
    """What is to be prepared; None if TFDS has done it all."""
    name = options.name
    if options.source:
        if name == "folder" and options.data_dir:
            _check_apart(Path(options.source), Path(options.data_dir))
        say(f"Reading what is in {options.source} ...")
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
    say(f"{name} is prepared in {builder.data_path}.")
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
    own = ("image_size", "channels", "test_share")
    given = [key for key in own if getattr(options, key) is not None]
    given += ["name"] if options.called and name != "idx" else []
    if name != "folder" and given:
        raise InputError(f"--{' and --'.join(given)} are for folder, not {name}.")
    size = source.image_size or options.image_size or 64
    rows, cols = (size, size) if isinstance(size, int) else size
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
        shape=raw.image_shape or (rows, cols, options.channels or 3),
        transform=transform,
        num_classes=len(raw.class_names),
        upright=name == "folder",
        skip_bad=options.skip_bad,
    )


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
    parser.add_argument("--image_size")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--test_share", type=float)
    parser.add_argument("--name", dest="called", default="")
    parser.add_argument("--class_names", default="")
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--skip_bad", action="store_true")
    if not arguments or {"-h", "--help"} & set(arguments):
        say(_help())
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
    if options.called and options.name not in ("folder", "idx"):
        raise InputError(f"--name is for idx and folder, not {options.name}.")
    if options.image_size is not None:
        options.image_size = _read_size(options.image_size)
    if options.channels not in (None, 1, 3):
        raise InputError(f"--channels must be 1 or 3, got {options.channels}.")
    if options.test_share is not None and not 0 <= options.test_share <= 0.5:
        raise InputError(
            f"--test_share must be from 0 to 0.5, got {options.test_share:g}."
        )
    options.called = unicodedata.normalize("NFC", options.called)
    if not re.fullmatch(r"[\w-]*", options.called):
        raise InputError(
            f"--name is made of letters, digits, _ and -, as files are called by it, "
            f"got {options.called!r}."
        )
    if options.num_workers < 0:
        raise InputError(
            f"--num_workers must not be negative, got {options.num_workers}."
        )
    return options


def _help() -> str:
    """This module's description, and a line for each source that it does not name."""
    described = __doc__ or ""
    lines = [
        f"  {name:<11} {(inspect.getdoc(source.open) or '').partition(chr(10))[0]}"
        for name, source in SOURCES.items()
        if not re.search(rf"^  .*\b{name}\b", described, re.M)
    ]
    return "\n".join([described.rstrip(), *(["", "Others:"] if lines else []), *lines])


def _read_size(text: str) -> int | tuple[int, int]:
    """A side, or (rows, cols)."""
    parts = text.strip("()[] ").split(",")
    sides = [int(part) for part in parts if part.strip().isdecimal()]
    if len(sides) < len(parts) or len(sides) > 2 or not all(s in _SIDES for s in sides):
        raise InputError(
            f"--image_size must be from 1 to {_SIDES[-1]}, or two such as 8,16 (rows, "
            f"columns), got {text}."
        )
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _refuse(message: str) -> None:
    raise InputError(f"{message}. See python -m dig_jax.prepare --help.")
