"""Plots of metrics.jsonl: drawn from whatever lines there are, and of what they say."""

import numpy as np
import pytest
from PIL import Image

from dig_jax.errors import InputError
from dig_jax.evaluation import curves
from dig_jax.evaluation.curves import TITLES, plot_scores
from dig_jax.evaluation.records import SCHEMA, append_record
from dig_jax.metrics import METRICS, feature_families
from dig_jax.metrics.scores import Score
from dig_jax.reporting.metric_writer import MetricWriter
from dig_jax.reporting.plots import plot_diversity, plot_loss


def write_lines(workdir, *lines):
    """One line for each dict, from step 1 on."""
    with MetricWriter(workdir, resume_step=None) as writer:
        for step, line in enumerate(lines, start=1):
            writer.write(step, line)


def noise_levels(value, *numbers):
    return {f"loss_by_noise_level/bin_{i:02d}": value for i in numbers}


def diversity(value, num_blocks=5):
    return {f"feature_diversity/block_{i:02d}": value + i for i in range(num_blocks)}


def test_the_loss_has_a_panel_for_each_thing_that_was_written(tmp_path):
    lines = [{"loss": 1 / step} for step in range(1, 100)]
    write_lines(tmp_path, *lines)
    one = Image.open(plot_loss(tmp_path)).width
    write_lines(tmp_path, *[{**line, "grad_norm": 1.0} for line in lines])
    two = Image.open(plot_loss(tmp_path)).width
    # A level that nothing fell into, and one whose loss was not finite.
    last = {"loss": 0.5, "grad_norm": 1.0, **noise_levels(0.1, 0, 1, 9)}
    last["loss_by_noise_level/bin_01"] = float("nan")
    write_lines(tmp_path, *lines, last)
    three = Image.open(plot_loss(tmp_path)).width
    # Matplotlib rounds a figure to whole pixels as it likes.
    assert (round(two / one, 2), round(three / one, 2)) == (2, 3)


@pytest.mark.parametrize("num_lines", [1, 2, 30])
def test_few_and_many_lines_of_noise_levels_are_drawn(tmp_path, num_lines):
    line = {"loss": 1.0, **noise_levels(0.5, *range(10))}
    write_lines(tmp_path, *[line] * num_lines)
    assert Image.open(plot_loss(tmp_path)).height > 0


def test_a_plot_of_values_that_are_not_finite_is_drawn(tmp_path):
    nothing = float("nan")
    write_lines(tmp_path, {"loss": 1.0, **noise_levels(nothing, 0, 1)})
    assert Image.open(plot_loss(tmp_path)).height > 0
    write_lines(tmp_path, {"feature_diversity/block_00": nothing})
    assert Image.open(plot_diversity(tmp_path)).height > 0


@pytest.mark.parametrize("num_steps", [1, 3, 40])
def test_diversity_has_a_curve_for_each_step_but_no_more_than_can_be_read(
    tmp_path, num_steps
):
    write_lines(tmp_path, *[diversity(10.0 * step) for step in range(num_steps)])
    image = np.asarray(Image.open(plot_diversity(tmp_path)))
    # Each curve has a blue of its own; those of grids and letters are grey.
    red, _, blue = np.moveaxis(image.astype(int), 2, 0)
    colors, counts = np.unique(image[blue - red > 20], axis=0, return_counts=True)
    curves = len(colors[counts > 500])
    assert curves == min(num_steps, 6)


@pytest.mark.parametrize("plot", [plot_loss, plot_diversity])
def test_a_plot_of_nothing_is_refused(tmp_path, plot):
    write_lines(tmp_path, {"loss": float("nan")})
    with pytest.raises(InputError, match=r"plot needs a line with .* got 1 lines"):
        plot(tmp_path)


def test_scores_have_a_panel_each_at_most_four_side_by_side(tmp_path):
    def draw(num_scores):
        scores = {f"score/score{i}": 1.0 + i for i in range(num_scores)}
        write_lines(tmp_path, {"loss": 1.0}, scores, {"loss": 0.5}, scores)
        return Image.open(plot_scores(tmp_path)).size

    (one, row), (four, _), (five, two_rows) = draw(1), draw(4), draw(5)
    assert round(four / one, 2) == 4
    assert round(five / four, 2) == 1
    assert round(two_rows / row, 2) == 2


def test_a_run_without_scores_has_no_plot_of_them(tmp_path):
    write_lines(tmp_path, {"loss": 1.0})
    with pytest.raises(InputError, match=r"`score/\.\.\.`.*got 1 lines"):
        plot_scores(tmp_path)


def test_a_score_says_what_it_is_which_way_is_better_and_what_real_images_reach(
    tmp_path, monkeypatch
):
    scores = [
        Score("fd", 3.0, 1000, domain="digits", real=0.5, num_real=297),
        Score("precision", 0.5, 1000, domain="digits"),
        Score("copied_share", 0.1, 1000, of="pixels", real=0.4, num_real=297),
    ]
    entries = {score.name: score.to_json() for score in scores}
    training = {"schema": SCHEMA, "samples": {"parameters_digest": ""}}
    append_record(tmp_path, training | {"scores": entries})
    later = {"copied_share": {"value": 0.2, "num_images": 9, "real": 0.9}}
    evaluated = {"schema": SCHEMA, "samples": {"parameters_digest": "0f"}}
    append_record(tmp_path, evaluated | {"scores": later})
    write_lines(tmp_path, {f"score/{score.name}": score.value for score in scores})
    kept = []

    def keep(figure, path):
        kept.append(figure)
        return path

    monkeypatch.setattr(curves, "save_figure", keep)
    plot_scores(tmp_path)
    copies, distance, precision = kept[0].axes
    told = "Fréchet distance of features\n1,000 images, classifier of digits"
    assert distance.get_title("left") == f"{told}   ↓ lower is better"
    assert "↑ higher is better" in precision.get_title("left")
    assert "better" not in copies.get_title("left")  # real images have copies, too
    lines = {ax: [line.get_ydata()[0] for line in ax.lines[1:]] for ax in kept[0].axes}
    assert lines == {distance: [0.5], precision: [], copies: [0.4]}
    assert distance.texts[0].get_text() == "297 real test images"


def test_every_family_of_scores_has_a_title():
    assert {*TITLES} == {*feature_families(), *METRICS} - {"copies"} | {"copied_share"}
