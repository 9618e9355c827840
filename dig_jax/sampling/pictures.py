"""Images as single picture files: numbered PNGs out, a folder of pictures in."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from dig_jax.data.decode import BadImageError, decode_image, is_image
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, make_folder
from dig_jax.interfaces import LabelledImages, UInt8Images
from dig_jax.reporting.images import write_png
from dig_jax.sampling.samples import MAX_BYTES, NO_LABELS

PICTURES = "samples"
_WRITTEN = re.compile(r"\d{6,}(?:_(?P<label>.+))?")
"""The name of a picture of ours, without its ending."""
_PREVIEW = re.compile(r"step_\d+\.png")
"""Those of training, which lie in the same folder."""
_DIGITS, _MOST_NAMED = 6, 3


class Pictures(NamedTuple):
    """Images that were read from a folder.

    Attributes:
        drawn: Images and labels; all labels are 0 where there are none.
        provenance: Digest of images and labels, and whether there are labels.
        note: A line on what was read, and what was left out.
    """

    drawn: LabelledImages
    provenance: dict[str, Any]
    note: str


def picture_name(index: int, label: int | None, class_names: Sequence[str] = ()) -> str:
    """File name of an image, such as `000012_circle.png` or `000012_3.png`.

    Of a class's name, whatever is neither letter nor digit becomes a dash.
    """
    number = f"{index:0{_DIGITS}}"
    if label is None:
        return f"{number}.png"
    return f"{number}_{_label_text(label, class_names)}.png"


def write_pictures(
    folder: AnyPath,
    images: UInt8Images,
    labels: Int[np.ndarray, "batch"] | None,
    class_names: Sequence[str] = (),
) -> None:
    """Write each image as a PNG of its own; those of an earlier call are removed.

    Args:
        folder: Where to; it is made.
        images: The images.
        labels: Of each; None where there are none.
        class_names: Of the labels, where they have names.
    """
    make_folder(folder)
    for path in folder.iterdir():
        if path.name.endswith(".png") and _WRITTEN.fullmatch(path.name[:-4]):
            path.unlink()
    for index, image in enumerate(images):
        label = None if labels is None else int(labels[index])
        write_png(folder / picture_name(index, label, class_names), image)


def read_pictures(
    folder: AnyPath,
    image_shape: tuple[int, int, int],
    num_classes: int = 0,
    class_names: Sequence[str] = (),
) -> Pictures:
    """Images of a folder, or of its folders: those that Pillow reads, by content.

    Labels are those of class folders, or of names as `write_pictures` gives; there are
    none where neither is there. Files are taken in the order of their names.

    Args:
        folder: Where they are.
        image_shape: (row, col, rgb) that they must have; rgb is 1 or 3.
        num_classes: That labels can name; 0 for none.
        class_names: Of the labels, where they have names.

    Raises:
        InputError: No picture, one of another size, a damaged one, or labels of some.
    """
    files = sorted(path for path in _files(folder) if not _PREVIEW.fullmatch(path.name))
    images, used, others = [], [], []
    total = 0
    for path in files:
        content = path.read_bytes()
        if not is_image(content):
            others.append(path.name)
            continue
        images.append(_decode(path, content, image_shape))
        used.append(path)
        total += images[-1].nbytes
        if total > MAX_BYTES:
            raise InputError(f"{folder} has more than {MAX_BYTES} bytes of pixels.")
    if not images:
        raise InputError(
            f"--samples={folder} needs pictures (PNG, JPEG, ...) or folders of them, "
            f"one for each class; it has {len(files)} other files."
        )
    pixels = np.stack(images)
    labels = _labels(folder, used, num_classes, class_names)
    digest = hashlib.sha256(pixels.data)
    if labels is not None:
        digest.update(labels.tobytes())
    provenance = {
        "samples_digest": digest.hexdigest(),
        "labels": NO_LABELS if labels is None else "those of the files",
    }
    note = f"{len(images)} pictures of {folder}, " + (
        "without labels" if labels is None else f"{len({*labels.tolist()})} classes"
    )
    if others:
        more = ", ..." if len(others) > _MOST_NAMED else ""
        named = ", ".join(others[:_MOST_NAMED])
        note += f"; {len(others)} files are no pictures: {named}{more}"
    zeros = np.zeros(len(images), np.int32)
    found = LabelledImages(pixels, zeros if labels is None else labels)
    return Pictures(found, provenance, note)


def _files(folder: AnyPath) -> list[AnyPath]:
    """The files of a folder and of its folders, but for hidden ones."""
    found = []
    for path in folder.iterdir():
        if path.name.startswith((".", "__MACOSX")):
            continue
        found += [path] if path.is_file() else [p for p in path.iterdir() if _seen(p)]
    return found


def _seen(path: AnyPath) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _decode(path: AnyPath, content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    rows, cols, channels = shape
    try:
        image = decode_image(content, channels=channels, upright=True).image
    except BadImageError as error:
        raise InputError(f"{path} is no picture to score: {error}.") from error
    if image.size != (cols, rows):
        raise InputError(
            f"Pictures to score must be {rows}x{cols} (rows, cols), as the data set's, "
            f"got {image.height}x{image.width} in {path}. They are not resized here."
        )
    return np.asarray(image).reshape(shape)


def _labels(
    folder: AnyPath, files: Sequence[AnyPath], count: int, names: Sequence[str]
) -> Int[np.ndarray, "batch"] | None:
    """The label of each file by its folder or its name; None where there are none.

    Raises:
        InputError: Some have one and others none.
    """
    known = {str(label): label for label in range(count)}
    known |= {_label_text(label, names): label for label in range(count)}
    known |= {_normal(name): label for label, name in enumerate(names[:count])}
    labels = []
    for path in files:
        if path.parent != folder:
            text = path.parent.name
        else:
            written = _WRITTEN.fullmatch(path.name.rpartition(".")[0])
            text = (written and written["label"]) or ""
        labels.append(known.get(_normal(text)))
    without = [
        str(path) for path, label in zip(files, labels, strict=True) if label is None
    ]
    if len(without) == len(files):
        return None
    if without:
        raise InputError(
            f"Labels must be those of all pictures or of none: {len(without)} of "
            f"{len(files)} in {folder} have none of the {count} classes in the name of "
            f"their folder or their own, first {without[0]}."
        )
    return np.array(labels, np.int32)


def _label_text(label: int, class_names: Sequence[str]) -> str:
    """A class in a file's name: its name, where no other's would read alike."""
    texts = [re.sub(r"[\W_]+", "-", _normal(name)).strip("-") for name in class_names]
    if label >= len(texts):
        return str(label)
    text = texts[label]
    return text if text and texts.count(text) == 1 else str(label)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)
