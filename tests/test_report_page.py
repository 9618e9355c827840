"""Reports: what they show, that they open by themselves, and what they refuse."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import visit

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.main import main
from dig_jax.report import write_report
from dig_jax.report.charts import MAX_POINTS, Chart
from dig_jax.report.configuration import complete, config_flags, nearest
from dig_jax.report.html import data_script, element, table
from dig_jax.report.scores import score_charts
from dig_jax.reporting.goodput import read_goodput
from dig_jax.reporting.images import write_png
from dig_jax.reporting.metric_writer import DIVERSITY, SCORE, MetricWriter
from dig_jax.reporting.progress import Progress
from dig_jax.storage.run_config import restore_run_config
from dig_jax.training.report import RunReport


@pytest.fixture(scope="module")
def trained(trained_runs):
    """A run of four steps. Not to be changed."""
    return trained_runs.workdir()


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, with a second picture and further lines, as longer runs have."""
    run = shutil.copytree(trained, tmp_path / "run")
    write_png(run / "samples" / "step_2.png", np.full((20, 20, 3), 90, np.uint8))
    with MetricWriter(run, resume_step=4) as writer:
        for step in (2, 4):
            writer.write(step, {f"{DIVERSITY}0{block}": step for block in (0, 1)})
    return run


def test_a_runs_page_opens_by_itself_and_its_slider_works(browser, run):
    with visit(browser, write_report(run)) as seen:
        page = seen.page
        slider, picture = page.locator("#step-slider"), page.locator("#step-picture")
        last = picture.get_attribute("src")
        assert "step 4" in page.locator("#step-told").inner_text()
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert "step 2" in page.locator("#step-told").inner_text()
        assert "step 2" in picture.get_attribute("alt")
        assert picture.get_attribute("src") != last
        assert picture.evaluate("image => image.naturalWidth") > 0
        charts = page.locator(".plot")
        drawn = [charts.nth(i).locator("canvas").count() for i in range(charts.count())]
        assert len(drawn) >= 5
        assert all(drawn)
        page.locator("#config-search").fill("patch_sizes")
        shown = page.locator("#configuration tbody tr:visible")
        assert "backbone.patch_sizes" in shown.first.inner_text()
        assert shown.count() < 5
        assert seen.errors == []
        assert seen.outside == []


PAINTED = """(event) => {
  if (event) window.dispatchEvent(new Event(event));
  const canvases = (node) => [...node.querySelectorAll("*")].flatMap((one) =>
    one.tagName === "CANVAS" ? [one] : one.shadowRoot ? canvases(one.shadowRoot) : []);
  const isPainted = (canvas) => canvas.width && canvas.height && canvas.getContext("2d")
    .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value);
  return [...document.querySelectorAll(".plot")].every((plot) =>
    canvases(plot).some(isPainted));
}"""
"""In a page's script: whether every chart is, right after an event."""


def test_paper_has_the_charts_and_the_pictures_beside_each_other(browser, run):
    with visit(browser, write_report(run), color_scheme="dark") as seen:
        page = seen.page
        page.wait_for_function(PAINTED)
        # Bokeh draws later: what is drawn for paper alone is not there in time.
        assert page.evaluate(PAINTED, "beforeprint")
        strip = page.locator("#steps-on-paper img")
        assert not strip.first.is_visible()
        page.emulate_media(media="print")
        shown = [strip.nth(i).get_attribute("alt") for i in range(strip.count())]
        assert ["step 2" in shown[0], "step 4" in shown[1]] == [True, True]
        assert strip.nth(1).is_visible()
        for widget in ("#step-slider", "#step-play", "#config-search", "nav", ".copy"):
            assert not page.locator(widget).first.is_visible(), widget
        assert page.locator("#configuration tbody th").first.is_visible()
        assert seen.errors == []


def test_a_run_that_trains_has_a_page_that_says_so(run):
    import fcntl

    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] <= 2]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    shutil.rmtree(run / "checkpoints")
    with (run / "trainer.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in training: step 2 of 4" in write_report(run).read_text()
    text = write_report(run).read_text()
    assert "stopped at step 2 of 4" in text
    assert "Go on training" in text


def test_what_is_missing_is_left_out_and_said(run):
    for name in ("metrics.jsonl", "goodput.jsonl", "graph.png"):
        (run / name).unlink()
    (run / "samples" / "step_2.png").write_bytes(b"no picture")
    text = write_report(run).read_text()
    assert "metrics.jsonl has no line with a loss yet" in text
    assert "metrics.jsonl has no line yet" in text
    assert "goodput.jsonl has no line yet" in text
    assert "step_2.png" in text.partition("Left out</h2>")[2]
    assert text.count("data:image/png") >= 1  # of step 4


def a_record(name, num_images, real=None):
    """A record of training with one score."""
    entry = {"value": 1.0, "num_images": num_images}
    if real is not None:
        entry |= {"real": real[0], "num_real": real[1]}
    features = {"network": "small_classifier of toys", "weights": "a"}
    return {"samples": {}, "features": features, "scores": {name: entry}}


def chart_of(records, name):
    (chart,) = score_charts(records, [{"step": 1, f"{SCORE}{name}": 1.0}])
    return chart


def test_a_curve_has_real_images_line_where_the_same_score_of_them_is_known():
    drawn = a_record("fd_toys500", 500)
    accuracy = {"value": 1.0, "num_images": 500, "real": 1.0, "num_real": 297}
    known = a_record("fd_toys500", 500, (0.25, 500))
    known["samples"]["parameters_digest"] = "of --mode=evaluate"
    (line,) = chart_of([drawn, known], "fd_toys500").lines
    assert line == {"name": "500 real test images", "y": 0.25}
    # Of another classifier, and of another number: another score.
    other = {**known, "features": {**known["features"], "weights": "b"}}
    fewer = a_record("fd_toys297", 297, (0.5, 297))
    drawn["scores"]["label_accuracy"] = accuracy
    chart = chart_of([drawn, other, fewer], "fd_toys500")
    assert chart.lines == []
    assert "of 500 real ones it was not measured (there are 297)" in chart.note
    chart = chart_of([a_record("fd_toys500", 500)], "fd_toys500")
    assert "had no test images" in chart.note


def test_a_line_of_fewer_real_images_is_called_no_lower_bound():
    chart = chart_of([a_record("frechet_pixels", 500, (0.5, 297))], "frechet_pixels")
    assert chart.lines == [{"name": "297 real test images", "y": 0.5}]
    assert "no lower bound" in chart.note
    equal = chart_of([a_record("frechet_pixels", 297, (0.5, 297))], "frechet_pixels")
    assert "bound" not in equal.note


def test_a_picture_that_is_cut_off_is_left_out(run):
    whole = (run / "samples" / "step_2.png").read_bytes()
    assert write_report(run).read_text().count('"src":"data:image/png') == 2
    flipped = whole[:45] + bytes([whole[45] ^ 1]) + whole[46:]
    for spoilt in (whole[: len(whole) // 2], whole[:-20], flipped):
        (run / "samples" / "step_2.png").write_bytes(spoilt)
        text = write_report(run).read_text()
        left_out = text.partition("Left out</h2>")[2]
        assert "samples/step_2.png" in left_out, len(spoilt)
        assert text.count('"src":"data:image/png') == 1


def test_lines_without_a_step_are_not_called_missing(run):
    kept = [{"step": step, f"{DIVERSITY}block_00": 1.0} for step in (2, 4)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(k)}\n" for k in kept))
    text = write_report(run).read_text()
    assert "none of the 2 lines of metrics.jsonl has learning_rate" in text
    assert "held_out_every=" in text.partition("Left out</h2>")[2]


def test_a_folder_in_the_reports_place_is_one_line(run, capsys):
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    assert main(["--mode=report", f"--workdir={run}"]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "report.html, which must be a file, got a folder" in error


def test_training_writes_its_page_and_the_most_memory(trained):
    text = (trained / "report.html").read_text()
    assert "done: 4 steps" in text
    assert "100.0%" in text  # of the time, which is known at the end
    assert read_goodput(trained)[-1]["peak_bytes"]["host"] > 2**20


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: shutil.rmtree(run), "there is no folder"),
        (lambda run: [p.unlink() for p in run.glob("*.json")], "is no run, comparison"),
        (lambda run: (run / "config.json").write_text("{"), "is not a configuration"),
        (lambda run: (run / "config.json").write_text("{}"), "lacks backbone"),
        (lambda run: (run / "manifest.json").write_text("{}"), "is damaged"),
        (lambda run: (run / "compare.json").write_text("{}"), "record of a comparison"),
        (
            lambda run: (run / "config.json").write_text('{"base": 1, "variants": 2}'),
            "has no compare.json yet",
        ),
    ],
)
def test_other_folders_are_refused_in_a_line(run, spoil, said, capsys):
    shutil.rmtree(run / "checkpoints")
    spoil(run)
    assert main(["--mode=report", f"--workdir={run}"]) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (run / "report.html").exists() or said != "there is no folder"


def test_a_report_takes_no_configuration(run, capsys):
    flags = ["--mode=report", f"--workdir={run}"]
    assert main([*flags, "--config.seed=1"]) == EXIT_BAD_INPUT
    assert "takes no configuration, got --config.seed=1" in capsys.readouterr().err
    assert main(flags) == EXIT_DONE


def test_the_command_to_go_on_makes_the_runs_configuration(run):
    """Its flags, given to the shipped configuration, make that of the run."""
    from dig_jax.cli.command_line import parse

    values = complete(restore_run_config(run, write=False))
    shipped = nearest(values)
    assert shipped is not None
    flags = config_flags(values, shipped)
    assert flags is not None
    _, config, _ = parse([f"--config={shipped.name}", *flags], ["train"])
    again = complete(config)
    named = {"data.title", "data.class_names"}  # training writes them down
    assert {k: v for k, v in again.items() if k not in named} == {
        k: v for k, v in values.items() if k not in named
    }


def test_a_page_that_fails_is_a_line_and_no_end():
    def fail(workdir):
        raise ZeroDivisionError("no\npage")

    said = io.StringIO()
    with Progress(1, stream=said) as progress:
        RunReport(fail, Path("run")).write(progress)
    assert "report.html was not written: no page\n" in said.getvalue()


def test_pages_take_no_more_than_a_hundredth_of_the_time():
    now, written = [0.0], []

    def write(workdir):
        written.append(now[0])
        now[0] += 3.0

    report = RunReport(write, Path("run"), clock=lambda: now[0])
    with Progress(1, silent=True) as progress:
        for _ in range(10_000):
            now[0] += 1.0
            report.write_if_cheap(progress)
    assert len(written) > 10
    assert 3.0 * len(written) <= 0.01 * now[0]


def test_a_long_curve_is_drawn_by_means_of_its_parts(rng):
    values = rng.normal(size=50_000)
    chart = Chart("Loss", "Step", "Loss")
    chart.add("loss", range(50_000), values.tolist())
    (series,) = chart.spec()["series"]
    assert len(series["x"]) == len(series["y"]) == MAX_POINTS
    mean = sum(series["y"]) / MAX_POINTS
    assert mean == pytest.approx(values.mean(), abs=1e-3)  # parts differ by one value


def test_text_of_files_is_no_markup():
    hostile = '</script><script>alert(1)</script>"\x1b[2J'
    page = element("p", hostile) + table([hostile], [[hostile]], caption=hostile)
    page += data_script("x", {"a": hostile})
    assert "<script>alert" not in page
    assert "\x1b" not in page
    (inside,) = [p for p in page.split(">") if p.startswith('{"a"')]
    assert json.loads(inside.partition("<")[0])["a"] == hostile
