"""Records of scores: kept, averaged, compared and shown."""

import numpy as np
import pytest

from dig_jax.evaluation.records import (
    SCHEMA,
    Score,
    append_record,
    flat_scores,
    format_record,
    is_better,
    mean_record,
    read_records,
    score_family,
)


def create_record(seed=0, fid=3.0, **more):
    scores = {
        "fid50k": Score(fid, 50_000),
        "kid10k": Score(0.1, 10_000, 0.01, real=0.0, real_std=0.001, num_real=10_000),
        "label_accuracy": Score(0.5, 50_000, real=0.9, num_real=297),
    }
    return {
        "schema": SCHEMA,
        "num_images": 50_000,
        "scores": {name: score.to_json() for name, score in scores.items()},
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
    assert flat_scores(create_record()) == {
        "fid50k": 3.0,
        "kid10k": 0.1,
        "kid10k_test": 0.0,
        "label_accuracy": 0.5,
        "label_accuracy_test": 0.9,
    }


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("fid50k", "fid"),
        ("fid1500", "fid"),
        ("fd_digits1k", "fd_digits"),
        ("kid_cifar10_10k", "kid_cifar10"),
        ("precision_imagenet64_500", "precision_imagenet64"),
        ("label_accuracy", "label_accuracy"),
        ("frechet_pixels", "frechet_pixels"),
    ],
)
def test_a_family_is_a_name_without_its_number(name, family):
    assert score_family(name) == family


def test_distances_are_better_when_smaller_and_shares_when_greater():
    assert is_better("fid", 1.0, 2.0)
    assert not is_better("fid", 2.0, 2.0)
    assert is_better("label_accuracy_digits", 0.9, 0.8)
    assert is_better("inception_score", 9.0, 8.0)
    assert not is_better("kid", 0.2, 0.1)


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
