"""Reports: what they show, that they open by themselves, and what they refuse."""

import copy
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import visit

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.main import main
from dig_jax.report import write_report
from dig_jax.report.charts import MAX_POINTS, Chart
from dig_jax.report.comparison_page import comparison_page
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


def a_comparison(folder):
    """compare.json of two variants with two seeds, as version after version has it."""
    seeds, values = (0, 1), {"parallel": (2.0, 2.2), "<i>uvit</i>": (1.0, 1.3)}

    def points(value):
        score = {"value": value, "num_images": 10, "real": 0.5, "num_real": 20}
        return {
            "frechet_pixels": value,
            "frechet_pixels_test": 0.5,
            "checkpoint_step": 4,
            "record": {"scores": {"frechet_pixels": score}},
            "noise_levels": {"eps": [value] * 10, "x0": [value] * 10},
        }

    def variant(name):
        ends = zip(seeds, values[name], strict=True)
        runs = [
            {"seed": s, "points": [points(v)], "feature_diversity": [1.0, 0.5]}
            for s, v in ends
        ]
        costs = {"params": 10, "macs_per_image": 5, "attention_macs_per_image": 0}
        speed = {"images_per_second": 10.0, "peak_bytes": None}
        steps = {"num_steps": 4, "batch_size": 8, "training_macs_per_image": 15}
        named = {"name": name, "backbone": "dit", "width": 8, "differs": {}}
        return {**named, **steps, **costs, **speed, "runs": runs}

    record = {
        "budget": "macs",
        "reference": "parallel",
        "quality": "frechet_pixels",
        "seeds": list(seeds),
        "device": "1 x cpu",
        "jax": "0",
        "data": {"name": "digits", "image_size": 8},
        "batch_size": 8,
        "sde": {},
        "objective": {},
        "optimizer": {},
        "sample": {"num_images": 10, "solver": "ddim", "num_steps": 4},
        "variants": [variant(name) for name in values],
    }
    (folder / "compare.json").write_text(json.dumps(record))
    return record


def judged(record):
    """The record with what newer versions say of it."""
    says = {"score": "frechet_pixels", "num_seeds": 2, "says": "ahead"}
    pair = {"variant": "<i>uvit</i>", "against": "parallel"}
    difference = {"difference": -0.95, "standard_error": 0.05}
    rate = {"variant": "parallel", "learning_rate": 0.1, "held_out_loss": None}
    return {
        **record,
        "verdict": [{**pair, **says, **difference}],
        "learning_rates": [{**rate, "chosen": False}],
    }


def plain(text):
    return re.sub("<[^>]+>", "", text)


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


def test_a_comparisons_page_opens_and_says_the_verdict_first(browser, tmp_path):
    record = judged(a_comparison(tmp_path))
    (tmp_path / "compare.json").write_text(json.dumps(record))
    with visit(browser, write_report(tmp_path), color_scheme="dark") as seen:
        first = seen.page.locator("section").first.inner_text()
        assert first.startswith("Verdict")
        row = seen.page.locator("#verdict tbody tr").first.inner_text().split()
        assert row == ["<i>uvit</i>", "ahead", "-0.9500", "±", "0.0500", "2"]
        rows = seen.page.locator("#ranking tbody tr")
        assert "<i>uvit</i>" in rows.nth(0).inner_text()
        assert "real test images" in rows.nth(2).inner_text()
        assert seen.page.locator("#quality .plot canvas").count() >= 3
        assert seen.errors == []
        assert seen.outside == []


def test_sixteen_lines_differ_and_their_table_fits_page_and_paper(browser, tmp_path):
    record = a_comparison(tmp_path)
    second = record["variants"][1]
    for number in range(14):
        name = f"a_variant_with_a_long_name_{number}"
        record["variants"].append({**copy.deepcopy(second), "name": name})
    more = {f"score_{i}": 1.25 + i for i in range(3)}
    more |= {f"{name}_test": value for name, value in more.items()}
    for variant in record["variants"]:
        for run in variant["runs"]:
            run["points"][0] |= more
    (tmp_path / "compare.json").write_text(json.dumps(record))
    size = {"width": 1200, "height": 900}
    with visit(browser, write_report(tmp_path), viewport=size) as seen:
        page = seen.page
        legend = page.locator("#quality .legend").first.locator("button svg")
        shown = {legend.nth(i).evaluate("one => one.outerHTML") for i in range(16)}
        assert legend.count() == len(shown) == 16
        box = page.locator("#ranking .scrolled")
        rest = """one => [
            one.scrollWidth - one.clientWidth, one.scrollHeight - one.clientHeight]"""
        assert max(box.evaluate(rest)) <= 1
        assert not page.locator("#ranking .goes-on").is_visible()
        # A page too narrow for it says so.
        page.set_viewport_size({"width": 420, "height": 900})
        assert box.evaluate(rest)[0] > 1
        page.wait_for_selector("#ranking .goes-on", state="visible")
        page.set_viewport_size({"width": 703, "height": 900})  # A4 within its margins
        page.emulate_media(media="print")
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) <= 703
        assert not page.locator("#ranking .goes-on").is_visible()
        assert seen.errors == []


def test_a_comparison_without_a_verdict_has_its_ranking(tmp_path):
    a_comparison(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "a version that judged nothing" in text
    assert "-0.9500 ± 0.0500" in plain(text)  # mean of -1.0 and -0.9, by hand
    assert 'id="rates"' not in text


def test_a_ranking_by_held_out_loss_says_so_and_shows_the_loss(tmp_path):
    record = judged(a_comparison(tmp_path))
    first, second = record["variants"]
    for variant, loss in ((first, 0.25), (second, 0.75)):  # the other way round
        for run in variant["runs"]:
            run["points"][-1]["noise_levels"]["eps"] = [loss - 0.125, loss + 0.125]
    named = [first["name"], second["name"]]
    (tmp_path / "compare.json").write_text(json.dumps({**record, "ranking": named}))
    text = write_report(tmp_path).read_text()
    assert "judged by held-out loss and frechet_pixels" in text
    ranking = text.partition('id="ranking"')[2].partition("</section>")[0]
    assert "Ranked by held-out loss" in ranking
    ranking = plain(ranking)
    assert ranking.index("0.2500 ± 0.0000") < ranking.index("0.7500 ± 0.0000")
    (tmp_path / "compare.json").write_text(json.dumps(record))
    ranking = write_report(tmp_path).read_text().partition('id="ranking"')[2]
    assert "Ranked by frechet_pixels" in ranking
    assert "0.7500" not in ranking.partition("</section>")[0]


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


def test_the_first_judge_is_drawn_as_the_score_is(tmp_path):
    record = a_comparison(tmp_path)
    first, second = record["variants"]
    for loss, run in zip((1.0, 2.0), second["runs"], strict=True):
        end = run["points"][0]
        middle = {
            **end,
            "checkpoint_step": 2,
            "noise_levels": {"eps": [8.0 * loss] * 10},
        }
        run["points"] = [
            middle,
            {**end, "noise_levels": {"eps": [loss, 3.0 * loss] * 5}},
        ]
    charts = {
        chart["title"]: chart for chart in comparison_page(record, tmp_path).charts
    }
    for over, x in (("images", [16, 32]), ("time", [1.6, 3.2])):
        chart = charts[f"Held-out loss ↓ over {over}"]
        (series,) = (s for s in chart["series"] if s["name"] == second["name"])
        assert series["x"] == x
        assert series["y"] == [12.0, 3.0]  # means over seeds, then over noise levels
        assert (series["low"], series["high"]) == ([8.0, 2.0], [16.0, 4.0])
        assert chart["lines"] == []
    seeds = charts["Held-out loss: difference from parallel with the same seed"]
    base = [run["points"][0]["frechet_pixels"] for run in first["runs"]]
    values = [one["y"] for one in seeds["series"]]
    assert values == [[pytest.approx(2 - base[0])], [pytest.approx(4 - base[1])]]
    for run in second["runs"]:
        del run["points"][0]["noise_levels"]
    page = comparison_page(record, tmp_path)
    titles = [chart["title"] for chart in page.charts]
    assert not [title for title in titles if title.startswith("Held-out loss ↓")]
    assert seeds["title"] in titles
    assert any("By seed" in why for _, why in page.left_out)


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


def test_a_damaged_record_is_one_line(tmp_path):
    record = copy.deepcopy(a_comparison(tmp_path))
    del record["variants"][0]["runs"][0]["points"][0]["checkpoint_step"]
    (tmp_path / "compare.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"compare\.json is not the record"):
        write_report(tmp_path)
