"""Records of scores: kept, averaged, compared and shown."""

import numpy as np
import pytest

from dig_jax.evaluation.records import (
    SCHEMA,
    append_record,
    flat_scores,
    format_record,
    is_better,
    mean_record,
    read_records,
    read_scores,
    real_of,
)
from dig_jax.metrics import FEATURE_METRICS, feature_families
from dig_jax.metrics.scores import Score


def create_record(seed=0, fid=3.0, **more):
    scores = (
        Score("fid", fid, 50_000),
        Score("kid", 0.1, 10_000, std=0.01, real=0.0, real_std=0.001, num_real=10_000),
        Score("label_accuracy", 0.5, 50_000, of="pixels", real=0.9, num_real=297),
    )
    return {
        "schema": SCHEMA,
        "num_images": 50_000,
        "scores": {score.name: score.to_json() for score in scores},
        "samples": {
            "seed": seed,
            "checkpoint_step": 7,
            "solver": "ddim",
            "num_steps": 50,
            "function_evaluations": 49,
            "parameters": "ema 0.99",
            "labels": "uniform",
            "guidance": 1.5,
        },
        "real": {"dataset": "cifar10", "split": "train", "num_images": 50_000},
        "features": {"network": "inception", "weights": "ab", "statistics": "cd" * 32},
        "notes": ["a thing to know"],
        "seconds": 2.0,
        **more,
    }


def test_records_are_read_as_they_were_appended(tmp_path):
    records = [create_record(seed) for seed in range(3)]
    for record in records:
        path = append_record(tmp_path, record)
    assert read_records(tmp_path) == records
    with path.open("a") as file:  # a line of an older version, and half a line
        file.write('{"label_accuracy": 0.5}\n{"schema": 2, "sco')
    assert read_records(tmp_path) == records
    assert read_records(tmp_path / "nothing") == []


def test_the_mean_over_seeds_has_the_deviation_over_n_minus_1():
    values = (3.0, 5.0, 10.0)
    records = [create_record(seed, fid) for seed, fid in enumerate(values)]
    mean = mean_record(records)
    assert mean["scores"]["fid50k"]["value"] == pytest.approx(6.0)
    assert mean["scores"]["fid50k"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert mean["samples"]["seed"] == [0, 1, 2]
    assert mean["seconds"] == 6.0


def test_flat_scores_have_real_ones_beside_them():
    flat = flat_scores(create_record())
    assert (real_of(flat, "kid10k"), real_of(flat, "fid50k")) == (0.0, None)
    assert flat == {
        "fid50k": 3.0,
        "kid10k": 0.1,
        "kid10k_test": 0.0,
        "label_accuracy": 0.5,
        "label_accuracy_test": 0.9,
    }


@pytest.mark.parametrize(
    ("score", "name", "kind"),
    [
        (Score("fid", 1.0, 50_000), "fid50k", "fid"),
        (Score("fid", 1.0, 1500), "fid1500", "fid"),
        (Score("fd", 1.0, 1000, "digits"), "fd_digits1k", "fd_digits"),
        (Score("kid", 1.0, 10_000, "cifar10"), "kid_cifar10_10k", "kid_cifar10"),
        (
            Score("precision", 1.0, 500, "imagenet64"),
            "precision_imagenet64_500",
            "precision_imagenet64",
        ),
        (
            Score("label_accuracy", 1.0, 20, of="pixels"),
            "label_accuracy",
            "label_accuracy",
        ),
    ],
)
def test_a_score_has_one_name(score, name, kind):
    assert (score.name, score.kind) == (name, kind)


@pytest.mark.parametrize("count", [0, 1, 10, 297, 1000, 1500, 50_000])
@pytest.mark.parametrize("domain", ["", "digits", "cifar10", "imagenet64", "my_set_2"])
def test_names_are_read_back_as_they_were_written(domain, count):
    scores = [
        Score(family, 0.5, count, domain, std=0.1) for family in feature_families()
    ]
    scores += [
        Score(family, 0.5, count, of="pixels", real=0.4, num_real=9)
        for family in ("copied_share", "frechet_pixels", "label_accuracy", "mse_top5")
    ]
    record = {"scores": {score.name: score.to_json() for score in scores}}
    assert read_scores(record) == tuple(scores)


def test_a_score_of_a_metric_that_is_no_more_keeps_its_name(monkeypatch):
    score = Score("kid", 0.1, 10_000, "digits")
    monkeypatch.delitem(FEATURE_METRICS, "kid")
    (found,) = read_scores({"scores": {score.name: score.to_json()}})
    assert found.name == score.name


def test_distances_are_better_when_smaller_and_shares_when_greater():
    assert is_better(Score("fid", 1.0, 9), 2.0)
    assert not is_better(Score("fid", 2.0, 9), 2.0)
    assert is_better(Score("label_accuracy", 0.9, 9, "digits"), 0.8)
    assert is_better(Score("label_accuracy", 0.9, 9, of="pixels"), 0.8)
    assert is_better(Score("inception_score", 9.0, 9), 8.0)
    assert is_better(Score("frechet_pixels", 0.1, 9, of="pixels"), 0.2)
    assert not is_better(Score("kid", 0.2, 9), 0.1)


def test_a_record_reads_as_a_table():
    text = format_record(create_record())
    assert text.splitlines() == [
        "50,000 images of step 7 (ddim, 50 steps, 49 function evaluations; ema 0.99; "
        "labels uniform; seed 0; guidance 1.5)",
        "against 50,000 images of cifar10, split train; features of inception ab, "
        "statistics cdcdcdcdcdcdcdcd",
        "note: a thing to know",
        "                            drawn  real test images",
        "  fid50k                   3.0000",
        "  kid10k          0.1000 ± 0.0100  0.0000 ± 0.0010",
        "  label_accuracy           0.5000  0.9000  (297 images)",
    ]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (
            {"labels": "none", "samples_digest": "ef" * 32},
            "from a file (efefefefefefefef)",
        ),
        ({"labels": "balanced"}, "of unknown origin"),
    ],
)
def test_images_of_others_are_said_to_be_so(samples, said):
    text = format_record(create_record(samples=samples))
    assert text.startswith(f"50,000 images {said}\n")
