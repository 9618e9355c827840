"""Draw images with an exported sampler.

Needs jax, flatbuffers, numpy, pillow and safetensors.

    python sample.py --num_images=16 --labels=0,3,5 --seed=0 --out=samples.png

Labels go round, and may be class names where the export has such. --out ends in .png,
or in .npz for the arrays `images` and `labels`. Exit codes are those of dig_jax: 0, 78
for bad input or a damaged export, 77 where the network's output is not finite, 130
after Ctrl-C.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from jax import export
from PIL import Image
from safetensors.numpy import load_file

EXIT_DONE, EXIT_NON_FINITE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 77, 78, 130


class InputError(ValueError):
    """What was asked for, or lies there, cannot work: said in one line."""


class NonFiniteError(ArithmeticError):
    """The network's output is not finite."""


def draw_images(
    folder: Path, num_images: int, labels: list[int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [image, row, col, rgb], and their labels; all labels if none.

    Raises:
        InputError: Numbers or labels that cannot be, or a damaged export.
        NonFiniteError: The network's output is not finite.
    """
    record = read_record(folder)
    platform, classes = export.default_export_platform(), record["num_classes"]
    if platform not in (known := record["platforms"]):
        raise InputError(f"exported for {', '.join(known)}, but this is {platform}.")
    if num_images < 1 or not 0 <= seed < 2**31 or {*labels} - {*range(classes)}:
        raise InputError(
            f"needs num_images >= 1, seed in 0 to 2147483647 and labels in "
            f"{range(classes)}, got {num_images}, {seed}, {labels}."
        )
    group = record["group_sizes"][platform]
    choices = np.array(labels or [*range(classes)] or [0], np.int32)
    wanted = np.resize(choices, num_images + group)
    parameters = load_file(folder / "parameters.safetensors")
    sampler = (folder / f"group_{platform}.stablehlo").read_bytes()
    draw, images = jax.jit(export.deserialize(bytearray(sampler)).call), []
    for start in range(0, num_images, group):
        index = np.arange(start, start + group, dtype=np.int32)
        x = np.asarray(draw(parameters, np.int32(seed), index, wanted[index]))
        if not np.isfinite(x).all():
            raise NonFiniteError("the network's output is not finite.")
        images.append(np.rint((x + 1) * 127.5).clip(0, 255).astype(np.uint8))
    return np.concatenate(images)[:num_images], wanted[:num_images]


def read_record(folder: Path) -> dict:
    """The manifest's record, after comparing it and each file with its checksum."""
    path = folder / "manifest.json"
    errors = OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError
    try:
        whole = json.loads(path.read_text())
        record, files = whole["record"], whole["record"]["files"]
        content, expected = json.dumps(record, sort_keys=True).encode(), whole["sha256"]
        for name in [*files, None]:
            if hashlib.sha256(content).hexdigest() != expected:
                raise ValueError(path)
            if name is not None:
                path, expected = folder / Path(name).name, files[name]
                content = path.read_bytes()
    except errors:
        raise InputError(f"{path} is damaged: copy or export it again.") from None
    return record


def names_in_record(folder: Path, key: str) -> list[str]:
    """`class_names` or `files` of the record; none where nobody can read it."""
    try:
        whole = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [str(name) for name in whole["record"][key]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []  # `read_record` says what is damaged


def read_labels(text: str, names: list[str]) -> list[int]:
    """Labels such as "3", "0,3,5" or "circle,3": a class name goes before a number."""
    parts = [text] if text in names else [part.strip() for part in text.split(",")]
    try:
        return [names.index(p) if p in names else int(p) for p in parts]
    except ValueError:
        known = f"; class names: {', '.join(map(repr, names[:20]))}" if names else ""
        said = f"invalid labels value: {text!r}{known}"
        raise argparse.ArgumentTypeError(said) from None


def write_png(path: Path, images: np.ndarray) -> None:
    """Write images side by side, about as many in a row as there are rows.

    Small ones are enlarged to some 64 pixels, and white is between them.
    """
    count, rows, cols, channels = images.shape
    scale, gap = max(1, 64 // max(rows, cols)), 2
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    high, wide = rows * scale + gap, cols * scale + gap
    grid = np.full((down * high + gap, across * wide + gap, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // across * high, gap + i % across * wide
        grid[top : top + rows * scale, left : left + cols * scale] = image
    Image.fromarray(grid[..., 0] if channels == 1 else grid).save(path, "PNG")


def check_out(out: Path, folder: Path) -> None:
    """Raise InputError for a name that images cannot be written to.

    The export's own files have checksums: to write over one would damage it.
    """
    if out.suffix.lower() not in (".png", ".npz"):
        raise InputError(f"--out must end in .png or .npz, got {out}")
    if not out.parent.is_dir():
        raise InputError(f"--out={out}: there is no folder {out.parent}")
    if out.is_dir():
        raise InputError(f"--out={out} is a folder: name a file in it")
    own = "manifest.json", *names_in_record(folder, "files")
    if out.resolve() in {folder / name for name in own}:
        raise InputError(f"--out={out} is a file of this export: choose another name")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes end as all others do."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(message)


def draw(arguments: list[str]) -> None:
    """Draw what the arguments ask for, with the export beside this file."""
    folder = Path(__file__).resolve().parent

    def labels(text: str) -> list[int]:
        return read_labels(text, names_in_record(folder, "class_names"))

    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num_images", type=int, default=16)
    parser.add_argument(
        "--labels", type=labels, default=[], help="such as 3 or 0,3,5, or class names"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    asked = parser.parse_args(arguments)
    check_out(asked.out, folder)
    images, of = draw_images(folder, asked.num_images, asked.labels, asked.seed)
    if asked.out.suffix.lower() == ".npz":
        with asked.out.open("wb") as file:
            np.savez_compressed(file, images=images, labels=of)
    else:
        write_png(asked.out, images)
    print(f"Drew {len(images)} images: {asked.out}")


def main() -> int:
    """Draw what the command line asks for; returns the exit code."""
    try:
        draw(sys.argv[1:])
    except (InputError, OSError) as error:  # OSError: a full disk, no rights
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except NonFiniteError as error:
        print(f"not finite: {error}", file=sys.stderr)
        return EXIT_NON_FINITE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
