"""Drawn images on disk, with all that they depend on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from dig_jax.data.transforms import ROUNDING
from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.files.npz import Header, NpzFile, any_header, open_npz
from dig_jax.files.paths import AnyPath, make_folder, written_whole
from dig_jax.files.reading import parse_object, readable
from dig_jax.interfaces import LabelledImages, UInt8Images
from dig_jax.options import SampleOptions
from dig_jax.options.keys import keys_of
from dig_jax.sampling.choices import choose_solver
from dig_jax.sampling.guided import Guide
from dig_jax.versions import package_versions

NO_LABELS = "none"
"""The label rule of images that nobody asked for by a label."""

MAX_BYTES = 50 * 10**9
MAX_PROVENANCE_BYTES = 2**20
_CHANGE_IMAGES = [
    name
    for name, key in keys_of(SampleOptions).items()
    if key.marks.images and not key.marks.known
]


def describe_samples(
    experiment: Experiment,
    options: SampleOptions,
    step: int,
    *,
    guide: Guide | None = None,
    parameters_digest: str = "",
    pixels: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Where images come from: all that they depend on, as a JSON object.

    Args:
        experiment: Network and noise.
        options: How they are drawn.
        step: Of the checkpoint.
        guide: What they are guided by, if by another network.
        parameters_digest: Of the parameters that they are drawn with.
        pixels: What made pixels of latents (`ToPixels.record`).
    """
    solver = choose_solver(options, experiment.sde)
    record = {
        "checkpoint_step": step,
        "parameters": (
            f"ema {experiment.training.ema_decay}"
            if options.sigma_rel is None
            else f"post-hoc ema {options.sigma_rel}"
        ),
        "parameters_digest": parameters_digest,
        "function_evaluations": sum(solver.evaluations),
        "dtype": experiment.backbone_options.keywords.get("dtype", "float32"),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"]
        or "default",
        "rounding": ROUNDING,
        "device": jax.devices()[0].device_kind,
        "jaxlib": package_versions()["jaxlib"],
        "config": experiment.config_digest,
        **{name: getattr(options, name) for name in _CHANGE_IMAGES},
        "guide_step": guide.step if guide is not None else None,
        **(pixels or {}),
    }
    return json.loads(json.dumps(record))  # tuples become lists


def save_samples(
    path: AnyPath,
    images: UInt8Images,
    labels: Int[np.ndarray, "batch"] | None,
    provenance: dict[str, Any],
    class_names: Sequence[str] = (),
) -> None:
    """Write samples.npz: `images`, `labels` (0 where there are none), `provenance`.

    And `class_names`, a text for each label, where there are labels.
    """
    arrays = {
        "images": images,
        "labels": _labels_or_zeros(labels, len(images)),
        "provenance": np.array(json.dumps(provenance)),
    }
    if class_names:
        arrays["class_names"] = np.array(class_names)
    _save_npz(path, arrays)


def save_adm_batch(
    path: AnyPath, images: UInt8Images, labels: Int[np.ndarray, "batch"] | None
) -> None:
    """Write images for the ADM evaluator: `arr_0` [image, row, col, 3], `arr_1`.

    Grey images become RGB; labels are left out where there are none.
    """
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    _save_npz(path, {"arr_0": rgb} | ({} if labels is None else {"arr_1": labels}))


def read_samples(path: AnyPath) -> tuple[LabelledImages, dict[str, Any]]:
    """Images to be scored: what `save_samples` wrote, or an ADM batch.

    An ADM batch's provenance is its digest, and whether it has labels.

    Raises:
        InputError: The file is no such npz, or its images are not uint8.
    """
    with open_npz(path) as npz:
        adm = "arr_0" in npz
        name, label_name = ("arr_0", "arr_1") if adm else ("images", "labels")
        if not adm and not ("images" in npz and "provenance" in npz):
            raise InputError(
                "Samples are an npz with images, labels and provenance, or an ADM "
                f"batch (arr_0); {path} has {npz.describe()}."
            )
        read = partial(npz.read, max_bytes=MAX_BYTES, limit="of any samples")
        images = read(name, _check_image_header)
        labels = read(label_name, _check_label_header) if label_name in npz else None
        provenance = {} if adm else _read_provenance(npz)
    _check_pixels(path, images)
    if adm:
        provenance = {
            "samples_digest": hashlib.sha256(
                np.ascontiguousarray(images).data
            ).hexdigest(),
            "labels": NO_LABELS if labels is None else "those of the file",
        }
    labels = _labels_or_zeros(labels, len(images))
    if len(labels) != len(images):
        raise InputError(
            f"Samples need a whole number for each image as its label, got "
            f"{labels.dtype} {labels.shape} for {len(images)} images in {path}."
        )
    return LabelledImages(images, labels.astype(np.int32)), provenance


def _read_provenance(npz: NpzFile) -> dict[str, Any]:
    text = npz.read(
        "provenance", any_header, max_bytes=MAX_PROVENANCE_BYTES, limit="of a JSON text"
    )
    with readable(npz.place, "has no readable provenance"):
        return parse_object(str(text).encode())


def _check_image_header(header: Header) -> None:
    shape = header.shape
    if 0 in shape:
        raise ValueError("there are no images")
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise ValueError(
            "samples are images [image, row, col, rgb] with one channel or three"
        )


def _check_label_header(header: Header) -> None:
    if header.dtype.kind not in "iu" or len(header.shape) != 1:
        raise ValueError("labels are whole numbers, one for each image")


def _check_pixels(path: AnyPath, images: np.ndarray) -> None:
    """Raise InputError unless these are bytes; say what else they are."""
    if images.dtype == np.uint8:
        return
    found = f"{images.dtype}"
    if images.dtype.kind in "fiu":
        finite = images[np.isfinite(images)]
        if finite.size:
            found += f" from {finite.min():.4g} to {finite.max():.4g}"
        if num_bad := images.size - finite.size:
            found += f", {num_bad} of {images.size} not finite"
    raise InputError(
        f"Samples are uint8 pixels, 0 to 255, got {found} in {path}; values x in "
        f"[-1, 1] become pixels by {ROUNDING}."
    )


def _labels_or_zeros(labels: np.ndarray | None, count: int) -> np.ndarray:
    return np.zeros(count, np.int32) if labels is None else labels


def _save_npz(path: AnyPath, arrays: dict[str, np.ndarray]) -> None:
    make_folder(path.parent)
    with written_whole(path) as unfinished:
        np.savez_compressed(unfinished, allow_pickle=False, **arrays)
