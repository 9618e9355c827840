"""Who is ahead is found by a rule, on pairs of runs of one seed."""

import json
import re

import numpy as np
import pytest
from scipy.stats import ttest_rel

from dig_jax.comparison.markdown import format_comparison
from dig_jax.comparison.verdict import (
    HELD_OUT_LOSS,
    false_alarms,
    find_first,
    find_verdicts,
    judge_pairs,
    rank,
    tell_alarms,
)
from dig_jax.report.comparison_page import verdict_section
from dig_jax.report.comparison_tables import (
    differs_section,
    equal_section,
    rates_section,
)


def judged(values, others, **better):
    found = judge_pairs(values, others, **better)
    assert found is not None
    return found


def test_difference_and_chance_are_those_of_the_paired_t_test(rng):
    for count in (2, 3, 7):
        values, others = rng.normal(size=(2, count))
        mean, error, num_pairs, _, chance = judged(
            dict(enumerate(values)), dict(enumerate(others))
        )
        expected = ttest_rel(values, others)
        assert num_pairs == count
        assert mean == pytest.approx((values - others).mean(), abs=1e-15)
        assert mean / error == pytest.approx(expected.statistic, rel=1e-12)
        assert chance == pytest.approx(expected.pvalue, rel=1e-12)


def test_the_rule_is_two_standard_errors_to_either_side():
    """Differences m - 1 and m + 1 have mean m and standard error 1."""

    def says(mean, **better):
        pair = {0: mean - 1, 1: mean + 1}
        return judged(pair, {0: 0.0, 1: 0.0}, **better)[3]

    means = (-2.01, -1.99, 0.0, 1.99, 2.01)
    less = [says(mean) for mean in means]
    assert less == ["ahead", "tie", "tie", "tie", "behind"]
    assert [says(mean, greater_is_better=True) for mean in means] == less[::-1]


def test_false_alarms_are_those_of_closed_forms():
    """Of t with one degree of freedom (Cauchy's), and with two."""
    assert false_alarms(2) == pytest.approx(1 - 2 * np.arctan(2) / np.pi, rel=1e-12)
    assert false_alarms(3) == pytest.approx(1 - 2 / np.sqrt(2 + 2**2), rel=1e-12)
    # Of very many pairs the normal distribution's: two in either direction.
    assert false_alarms(10**7) == pytest.approx(0.0455, abs=1e-4)


def test_one_seed_and_equal_runs_say_nothing():
    assert judge_pairs({0: 1.0}, {0: 2.0}) is None
    assert judge_pairs({0: 1.0, 1: 1.0}, {1: 2.0, 2: 2.0}) is None
    assert judged({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})[3:] == ("tie", 1.0)
    # The same difference with every seed is as sure as can be.
    assert judged({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})[3:] == ("ahead", 0.0)


def variant_of(name, losses, distances, **keys):
    runs = [
        {
            "seed": seed,
            "points": [
                {
                    "noise_levels": {"eps": [loss] * 10, "x0": [0.5] * 10},
                    "fd_toys100": distance,
                    "fd_toys100_test": 0.5,
                    "accuracy": 0.9,
                    "accuracy_test": 1.0,
                }
            ],
        }
        for seed, (loss, distance) in enumerate(zip(losses, distances, strict=True))
    ]
    return {
        "name": name,
        "backbone": name,
        "width": 8,
        "differs": {},
        "num_steps": 4,
        "params": 1000,
        "macs_per_image": 2000,
        "attention_macs_per_image": 0,
        "images_per_second": 10.0,
        "images_per_second_range": [9.0, 11.0],
        "peak_bytes": None,
        "learning_rate": 1e-3,
        "runs": runs,
        **keys,
    }


def record_of(*variants, **keys):
    return {
        "budget": "macs",
        "minutes": 0.0,
        "reference": variants[0]["name"],
        "quality": "fd_toys100",
        "seeds": [0, 1],
        "device": "1 x cpu",
        "jax": "0",
        "data": {"name": "toys", "image_size": 8},
        "batch_size": 8,
        "sample": {"num_images": 100, "solver": "ddim", "num_steps": 4},
        "scores": {
            "fd_toys100": {"better": "down", "meaning": "a distance"},
            "accuracy": {"better": None, "meaning": "a share"},
        },
        "learning_rates": [],
        "variants": list(variants),
        **keys,
    }


@pytest.fixture
def record():
    """A reference, one that is ahead by loss and ties by distance, and a bad one."""
    record = record_of(
        variant_of("first", [1.0, 1.1], [2.0, 2.1]),
        variant_of("better", [0.9, 1.01], [2.05, 2.0]),
        variant_of("bad", [2.0, 2.1], [3.0, 3.2]),
    )
    record["verdict"] = [verdict._asdict() for verdict in find_verdicts(record)]
    return record


def test_a_score_that_some_runs_have_not_is_left_out_for_them(record):
    """As the accuracy of a network without classes."""
    for run in record["variants"][1]["runs"]:
        del run["points"][0]["accuracy"], run["points"][0]["accuracy_test"]
    row = next(
        line
        for line in format_comparison(record).splitlines()
        if line.startswith("| 1 | better |")
    )
    assert row.endswith("|  |")


def test_each_is_judged_against_the_reference_and_the_best(record):
    said = {
        (v["score"], v["variant"], v["against"]): v["says"] for v in record["verdict"]
    }
    assert said == {
        ("held_out_loss", "better", "first"): "ahead",
        ("held_out_loss", "bad", "first"): "behind",
        ("held_out_loss", "first", "better"): "behind",
        ("held_out_loss", "bad", "better"): "behind",
        ("fd_toys100", "better", "first"): "tie",
        ("fd_toys100", "bad", "first"): "behind",
        ("fd_toys100", "first", "better"): "tie",
        ("fd_toys100", "bad", "better"): "behind",
    }
    assert [variant["name"] for variant in rank(record)] == ["better", "first", "bad"]
    verdict = record["verdict"][0]
    assert verdict["difference"] == pytest.approx(-0.095)
    assert verdict["standard_error"] == pytest.approx(0.005)
    assert verdict["num_seeds"] == 2
    json.dumps(record)


def test_the_best_of_several_seeds_is_held_against_beside_a_better_one_of_one(record):
    record["variants"].append(variant_of("lucky", [0.5], [1.0]))
    record["verdict"] = [v._asdict() for v in find_verdicts(record)]
    judged = {(v["variant"], v["against"]) for v in record["verdict"]}
    assert ("bad", "better") in judged
    assert not any("lucky" in pair for pair in judged)
    first = find_first(record, HELD_OUT_LOSS)
    assert first is not None
    assert first.variant == "lucky"
    assert len(first.not_judged) == 3


def test_controls_are_what_others_are_held_against_too(record):
    record["controls"] = ["bad"]
    said = {(v.variant, v.against): v.says for v in find_verdicts(record)}
    assert said == {
        ("better", "first"): "tie",  # by distance, the last judge
        ("bad", "first"): "behind",
        ("first", "bad"): "ahead",
        ("better", "bad"): "ahead",
        ("first", "better"): "tie",
        ("bad", "better"): "behind",
    }
    record["verdict"] = [verdict._asdict() for verdict in find_verdicts(record)]
    page = str(verdict_section(record, []))
    page = page.partition("By fd_toys100")[2]
    bad, best = rows_of(page, "bad"), rows_of(page, "the best, better")
    assert [row[:2] for row in bad] == [["better", "ahead"], ["first", "ahead"]]
    assert [row[:2] for row in best] == [["first", "a tie"], ["bad", "behind"]]


def rows_of(page, against):
    """The cells of the first table of a page that is against one variant."""
    table = page.partition(f"against {against}</th>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table.partition("<tbody>")[2])
    return [
        [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in rows
    ]


def test_a_page_gives_each_verdict_its_difference_and_chance(record):
    page = str(verdict_section(record, []))
    by_loss, by_distance = page.split("By fd_toys100 ↓")
    assert "<strong>better is first</strong> (0.9550): ahead of first, bad." in by_loss
    head = "<strong>better is first</strong> (2.0250): ahead of bad; a tie with first."
    assert head in by_distance
    for text, against, row in (
        (by_loss, "the best, better", 0),
        (by_distance, "the reference, first", 0),
        (by_distance, "the best, better", 1),
    ):
        name, said, difference, seeds, chance = rows_of(text, against)[row]
        (found,) = (
            v
            for v in record["verdict"]
            if (v["variant"], v["against"]) == (name, against.split(", ")[1])
            and (v["score"] == "held_out_loss") == (text is by_loss)
        )
        assert said == ("a tie" if found["says"] == "tie" else found["says"])
        error = found["standard_error"]
        assert difference == f"{found['difference']:+.4f} ± {error:.4f}"
        assert (seeds, chance) == ("2", f"{found['chance']:.1%}")
    assert "exceeds two of its standard errors, else a tie" in page


def test_a_page_says_how_many_pairs_are_judged_and_err_by_chance(record):
    """Three pairs by two judges; the best beside the reference is one pair."""
    said = "6 pairs are judged at once, by all judges together: were all alike, about"
    text = f"{said} {6 * (1 - 2 * np.arctan(2) / np.pi):.1f} would be"
    assert text in str(verdict_section(record, [])).replace("&#x27;", "'")
    assert text in format_comparison(record)
    one = [record["verdict"][0]]
    assert "at once" not in tell_alarms(one)


def test_losses_under_another_noise_are_not_judged(record):
    other = variant_of("other", [0.1, 0.1], [2.9, 2.9], differs={"sde.name": "edm"})
    record["variants"].append(other)
    said = {(v.variant, v.score) for v in find_verdicts(record)}
    assert ("other", "fd_toys100") in said
    assert ("other", "held_out_loss") not in said
    # Ranked by what all of them have.
    names = [variant["name"] for variant in rank(record)]
    assert names == ["better", "first", "other", "bad"]


def test_the_page_says_first_who_is_ahead(record):
    text = format_comparison(record)
    assert text.index("## Verdict") < text.index("## At the end")
    assert "- By held-out loss ↓ **better** is first" in text
    assert "ahead of first and bad" in text
    assert "- By fd\\_toys100 ↓ **better** is first" not in text  # names keep their _
    assert (
        "- By fd_toys100 ↓ **better** is first (2.0250), ahead of bad; a tie with "
        in (text)
    )
    assert "30% of pairs" in text
    # Ranked, the best in bold, real images below.
    rows = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert rows[0].startswith("| 1 | better | 2 | **0.9550 ± 0.0778** |")
    assert "| **2.0250 ± 0.0354** |" in rows[0]
    assert "|  | real test images |  |  |  | 0.5000 | 1.0000 |" in text


def test_one_seed_gives_no_verdict(record):
    for variant in record["variants"]:
        del variant["runs"][1:]
    record["verdict"] = find_verdicts(record)
    assert record["verdict"] == []
    assert "No verdict yet" in format_comparison(record)


def test_a_page_of_nothing_yet_can_be_written(record):
    for variant in record["variants"]:
        variant["runs"] = []
    record["verdict"] = []
    assert "No verdict yet" in format_comparison(record)


def test_scores_along_training_have_a_table_where_there_are_several(record):
    assert "of the steps" not in format_comparison(record)
    assert "## fd_toys100 and what it took" in format_comparison(record, ["quality"])
    for variant in record["variants"]:
        for run in variant["runs"]:
            run["points"] = 2 * run["points"]
    page = format_comparison(record)
    assert "## fd_toys100 along training" in page
    assert "| variant | 1/2 of the steps | 2/2 of the steps |" in page


def test_a_page_shows_the_pictures_that_are_there(record):
    text = format_comparison(record, pictures=("samples", "quality"))
    shown = [line for line in text.splitlines() if line.startswith("![")]
    assert len(shown) == 2
    assert {line.rpartition("(")[2] for line in shown} == {
        "samples.png)",
        "quality.png)",
    }


def test_names_of_variants_cannot_forge_the_page(record):
    record["variants"][1]["name"] = "a*b"
    assert "a*b" not in format_comparison(record)


def test_rates_that_were_tried_are_in_the_page(record):
    record["learning_rates"] = [
        {
            "variant": name,
            "learning_rate": rate,
            "held_out_loss": loss,
            "num_steps": 10,
            "seed": 1000,
            "chosen": rate == 1e-3,
        }
        for name in ("first", "better", "bad")
        for rate, loss in ((1e-3, 0.5), (1e-2, None))
    ]
    text = format_comparison(record)
    assert "| first | **0.5000** | diverged |" in text
    # The best one is the least that was tried.
    said = "the best rate is at the end of the range"
    assert f"For first, better and bad {said}" in text
    assert f"For first, better, bad {said}" in rates_section(record)
    for row in record["learning_rates"]:
        row["chosen"] = row["learning_rate"] == 1e-2  # between two others
    extra = {"learning_rate": 1e-1, "held_out_loss": 0.9, "chosen": False}
    record["learning_rates"].append({**record["learning_rates"][0], **extra})
    assert said not in format_comparison(record)
    assert said not in rates_section(record)


def test_keys_that_differ_are_not_called_equal(record):
    whole = {"learning_rate": 1e-3, "weight_decay": 0.125, "warmup_steps": 7}
    record |= {"optimizer": whole, "sde": {"name": "vp"}, "objective": {}}
    assert "learning_rate=0.001" in equal_section(record)
    other, bad = record["variants"][1:]
    other["learning_rate"] = 2e-3  # as a search finds it
    bad["differs"] = {"optimizer.weight_decay": 0.25, "backbone.width": 4}
    text = str(equal_section(record))
    assert "learning_rate=" not in text
    assert "weight_decay=" not in text
    assert "warmup_steps=7" in text
    left = text.partition("not equal</dt>")[2]
    assert "optimizer.learning_rate" in left
    assert "optimizer.weight_decay" in left
    assert "backbone" not in left
    made = format_comparison(record).partition("Equal for all: ")[2].partition(".\n")[0]
    assert "but for optimizer.learning_rate, optimizer.weight_decay." in made
    assert "optimizer.learning_rate=0.002" in differs_section(record)
