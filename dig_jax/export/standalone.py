"""Draw images with an exported sampler.

Needs jax, flatbuffers, numpy, pillow and safetensors.

    python sample.py --num_images=16 --labels=0,3,5 --seed=0 --out=samples.png

Labels go round, and may be class names where the export has such. --out ends in .png,
or in .npz for the arrays `images` and `labels`.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from PIL import Image
from safetensors.numpy import load_file


def draw_images(
    folder: Path, num_images: int, labels: list[int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [image, row, col, rgb], and their labels; all labels if none."""
    record = read_record(folder)
    platform, classes = export.default_export_platform(), record["num_classes"]
    if platform not in (known := record["platforms"]):
        sys.exit(f"error: exported for {', '.join(known)}, but this is {platform}.")
    if num_images < 1 or not 0 <= seed < 2**31 or {*labels} - {*range(classes)}:
        sys.exit(
            f"error: needs num_images >= 1, seed in 0 to 2147483647 and labels in "
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
            sys.exit("error: the network's output is not finite.")
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
        sys.exit(f"error: {path} is damaged: copy or export it again.")
    return record


def class_names(folder: Path) -> list[str]:
    """The name of each label; none where the export has none, or nobody can read it."""
    try:
        whole = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [str(name) for name in whole["record"]["class_names"]]
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


def main() -> None:
    """Draw what the command line asks for, with the export beside this file."""

    folder = Path(__file__).resolve().parent

    def labels(text: str) -> list[int]:
        return read_labels(text, class_names(folder))

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num_images", type=int, default=16)
    parser.add_argument(
        "--labels", type=labels, default=[], help="such as 3 or 0,3,5, or class names"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    asked = parser.parse_args()
    if not asked.out.parent.is_dir():
        parser.error(f"--out={asked.out}: there is no folder {asked.out.parent}")
    images, of = draw_images(folder, asked.num_images, asked.labels, asked.seed)
    if asked.out.suffix == ".npz":
        np.savez_compressed(asked.out, images=images, labels=of)
    else:
        write_png(asked.out, images)
    print(f"Drew {len(images)} images: {asked.out}")


if __name__ == "__main__":
    main()
