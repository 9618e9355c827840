"""Images of a comparison's variants from the same noise, beside real ones."""

from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from dig_jax.comparison.plan import fit_comparison
from dig_jax.comparison.points import run_folder
from dig_jax.config import config_of
from dig_jax.config.comparison import read_comparison
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.files.checked_json import read_sound
from dig_jax.files.paths import AnyPath
from dig_jax.report.html import Markup, element, image, join, paragraph
from dig_jax.report.page import Missing
from dig_jax.report.pictures import picture, picture_of
from dig_jax.sampling.drawing import SAMPLES
from dig_jax.sampling.samples import read_samples

IMAGES_A_ROW = 16
_SEARCHED = 4096
"""Test images among which those of the drawn ones' classes are looked for."""


def pictures_section(variants: list[dict[str, Any]], workdir: AnyPath) -> Markup:
    """A row for each variant, and one of test images of the same classes."""
    rows, labels = [], None
    for variant in variants:
        seed = variant["runs"][0]["seed"]
        path = run_folder(workdir, variant["name"], seed) / SAMPLES
        if path.is_file():
            drawn, _ = read_samples(path)
            images = drawn.images[:IMAGES_A_ROW]
            if labels is None and drawn.labels[:IMAGES_A_ROW].any():
                labels = drawn.labels[:IMAGES_A_ROW]
            alt = f"Images drawn by {variant['name']}"
            rows.append((variant["name"], "", picture_of(images, len(images)), alt))
    if not rows:
        return _ready_made(workdir)
    real, said = None, ""
    try:
        real = _real_images(workdir, labels)
    except InputError as reason:
        said = f" Real images are left out: {reason}"
    if real is not None and len(real):
        source = picture_of(real, len(real))
        rows.append(("real images", "real", source, "Real test images"))
        of_classes = "" if labels is None else " of the same classes"
        said = f" Below them test images{of_classes}."
    shown = join(
        join(
            [
                element("span", name, class_=kind),
                image(source, alt, "strip"),
            ]
        )
        for name, kind, source, alt in rows
    )
    return join(
        [
            paragraph(
                "The first images of each variant: each column is of one noise and "
                f"one class.{said}"
            ),
            Markup(f'<div class="rows">{shown}</div>'),
        ]
    )


def _ready_made(workdir: AnyPath) -> Markup:
    """The picture that the comparison itself has drawn."""
    path = workdir / "samples.png"
    if not path.is_file():
        raise Missing("there are neither runs/*/samples.npz nor samples.png")
    said = "The first images of each variant: each column is of one noise."
    alt = "The first images of each variant, a row for each"
    return join([paragraph(said), image(picture(path), alt, "picture wide")])


def _real_images(
    workdir: AnyPath, labels: Int[np.ndarray, "batch"] | None
) -> UInt8[np.ndarray, "batch row col rgb"] | None:
    """Test images of these classes, in this order, or of any; None of latents.

    White where there is none of a class.

    Raises:
        InputError: The comparison's data set cannot be opened here.
    """
    what = "does not hold the configuration of a comparison"
    written = config_of(read_sound(workdir / "config.json", what))
    comparison = fit_comparison(read_comparison(written))
    reference = comparison.runs[comparison.options.reference]
    source = open_dataset(create_experiment(reference), "test")
    if source.image_shape[-1] not in (1, 3):
        return None
    has_classes = labels is not None and source.num_classes > 1
    drawn = np.zeros(IMAGES_A_ROW, np.int32) if labels is None else labels
    wanted = [int(label) if has_classes else 0 for label in drawn]
    by_class: dict[int, list[np.ndarray]] = {}
    found = 0
    for place in range(min(len(source), _SEARCHED)):
        record = source[place]
        label = int(record["label"]) if has_classes else 0
        if len(by_class.setdefault(label, [])) < wanted.count(label):
            by_class[label].append(np.asarray(record["image"]))
            found += 1
        if found == len(wanted):
            break
    if not found:
        return None
    white = np.full(source.image_shape, 255, np.uint8)
    return np.stack([by_class[n].pop(0) if by_class.get(n) else white for n in wanted])
