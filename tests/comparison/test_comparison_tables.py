"""Tables and pictures of a comparison, of scores that are known."""

import json

import numpy as np
from small_comparison import SPEED, create_config

from dig_jax.comparison import plots
from dig_jax.comparison.markdown import format_comparison
from dig_jax.comparison.plan import create_plan
from dig_jax.comparison.report import comparison_record
from dig_jax.config.comparison import read_comparison
from dig_jax.interfaces import LabelledImages


def test_the_table_holds_means_deviations_and_paired_differences(
    data_dir, tmp_path, rng
):
    config = create_config(data_dir, parallel={}, wide={})
    config.compare.seeds = (0, 1, 2)
    plan = create_plan(read_comparison(config))
    values = {"parallel": rng.uniform(1, 2, 3), "wide": rng.uniform(1, 2, 3)}
    for name, scores in values.items():
        for seed, score in enumerate(scores):
            folder = tmp_path / "runs" / f"{name}-{seed}"
            folder.mkdir(parents=True)
            point = {
                "frechet_pixels": score,
                "frechet_pixels_test": 0.5,
                "noise_levels": {"eps": [1.0] * 10, "x0": [0.5] * 10},
            }
            (folder / "points.json").write_text(json.dumps({"4": point}))
    speeds = dict.fromkeys(values, SPEED)
    text = format_comparison(comparison_record(plan, speeds, tmp_path))
    wide, difference = values["wide"], values["wide"] - values["parallel"]
    error = np.std(difference, ddof=1) / np.sqrt(3)
    place = 1 if wide.mean() < values["parallel"].mean() else 2
    cells = ["1.0000 ± 0.0000", "0.5000 ± 0.0000"]
    cells += [f"{wide.mean():.4f} ± {np.std(wide, ddof=1):.4f}"]
    (row,) = (line for line in text.splitlines() if f"| {place} | wide |" in line)
    assert [cell.strip(" *") for cell in row.split("|")[4:7]] == cells
    pair = f"| {difference.mean():+.4f} ± {error:.4f} | "
    assert pair in next(
        line for line in text.splitlines() if line.startswith("| wide | parallel |")
    )
    assert "| real test images |  |  |  | 0.5000 |" in text


def test_a_row_of_real_images_has_the_labels_of_the_drawn_ones():
    shape = (4, 2, 2, 1)
    real = LabelledImages(
        np.arange(16, dtype=np.uint8).reshape(shape), np.array([1, 0, 1, 2], np.int32)
    )
    labels = np.array([0, 1, 1, 1, 2])
    found = plots._like(labels, real, shape[1:], any_of=False)
    expected = [real.images[i] for i in (1, 0, 2)] + [np.full(shape[1:], 255)]
    np.testing.assert_array_equal(found, [*expected, real.images[3]])
    # Images that were drawn without labels have zeros for them.
    found = plots._like(np.zeros(4, int), real, shape[1:], any_of=True)
    np.testing.assert_array_equal(found, real.images)
