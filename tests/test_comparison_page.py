"""The page of a comparison: its verdict, its charts, and that all fits."""

import copy
import json
import re

import pytest
from browser import visit

from dig_jax.errors import InputError
from dig_jax.report import write_report
from dig_jax.report.comparison_page import comparison_page


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


def test_a_damaged_record_is_one_line(tmp_path):
    record = copy.deepcopy(a_comparison(tmp_path))
    del record["variants"][0]["runs"][0]["points"][0]["checkpoint_step"]
    (tmp_path / "compare.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"compare\.json is not the record"):
        write_report(tmp_path)
