"""Scores during training: kept, shown, and of no influence on what is trained."""

import json
import re

import numpy as np
import pytest
from processes import config_flags, digits_flags
from trained_runs import SHORT

from dig_jax import load
from dig_jax import main as command_line
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.evaluation import flat_scores, read_records
from dig_jax.reporting.metric_writer import read_metrics

EVALUATIONS = {
    "training.evaluate_every": 2,
    "training.evaluate_images": 20,
    "training.keep_best": "frechet_pixels",
    "evaluation.metrics": ("frechet_pixels",),
}
EVALUATED = config_flags(EVALUATIONS)


@pytest.fixture(scope="module")
def train(trained_runs):
    def train(workdir, *arguments):
        flags = digits_flags(trained_runs.data_dir, SHORT)
        return command_line.main([*flags, f"--workdir={workdir}", *arguments])

    return train


@pytest.fixture(scope="module")
def evaluated(trained_runs, compile_quickly):
    return trained_runs.workdir(EVALUATIONS)


def test_each_evaluation_is_recorded_plotted_and_logged(evaluated):
    records = read_records(evaluated)
    assert [record["samples"]["checkpoint_step"] for record in records] == [2, 4]
    logged = {
        line["step"]: line["score/frechet_pixels"]
        for line in read_metrics(evaluated)
        if "score/frechet_pixels" in line
    }
    expected = [flat_scores(record)["frechet_pixels"] for record in records]
    assert [logged[2], logged[4]] == expected
    assert (
        "score/fd_digits20" in read_metrics(evaluated)[-1] | read_metrics(evaluated)[-2]
    )
    assert (evaluated / "scores.png").is_file()


def test_the_best_checkpoint_is_the_one_with_the_best_score(evaluated):
    scores = {
        record["samples"]["checkpoint_step"]: flat_scores(record)["frechet_pixels"]
        for record in read_records(evaluated)
    }
    best = load(evaluated, step="best")
    assert best.step == min(scores, key=scores.__getitem__)
    same = load(evaluated, step=best.step) if best.step == 4 else best
    assert best.parameters_digest == same.parameters_digest


def test_evaluations_change_nothing_that_is_trained(trained_runs, evaluated):
    plain, other = load(trained_runs.workdir()), load(evaluated)
    assert plain.step == other.step == 4
    assert plain.parameters_digest == other.parameters_digest


def test_a_resumed_run_keeps_the_best_and_goes_on(train, tmp_path):
    workdir = tmp_path / "run"
    assert train(workdir, *EVALUATED, "--config.training.num_steps=2") == EXIT_DONE
    first = load(workdir, step="best")
    assert first.step == 2
    assert train(workdir, *EVALUATED) == EXIT_DONE
    scores = {
        record["samples"]["checkpoint_step"]: flat_scores(record)["frechet_pixels"]
        for record in read_records(workdir)
    }
    assert load(workdir, step="best").step == min(scores, key=scores.__getitem__)


def test_what_cannot_be_scored_is_said_and_training_goes_on(train, tmp_path, capsys):
    """No test images and no labels: the pixels' scores need none, features are out."""
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1)).astype(np.uint8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", images=images)
    code = command_line.main(
        [
            *digits_flags(tmp_path / "data", SHORT, EVALUATIONS),
            f"--workdir={tmp_path / 'run'}",
            "--config.data.name=npz",
            "--config.backbone.num_classes=0",
            "--config.objective.label_dropout=0",
            "--config.evaluation.features=none",
            "--config.training.evaluate_images=1",
        ]
    )
    assert code == EXIT_DONE
    out = capsys.readouterr().out
    assert re.search(r"step 2: not evaluated: .*at least two images", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["training.keep_best=fid", "training.evaluate_every=2"],
            r"keep_best must name.*got 'fid'\. Available: .*frechet_pixels, fd_digits",
        ),
        (["training.keep_best=fd_digits"], r"needs evaluations.*evaluate_every"),
        (["evaluation.inception_weights=no/file"], r"inception_weights must name"),
        (["training.evaluate_images=0"], r"evaluate_images"),
    ],
)
def test_training_refuses_what_it_could_not_evaluate(
    train, tmp_path, capsys, arguments, said
):
    flags = [f"--config.{argument}" for argument in arguments]
    assert train(tmp_path / "run", *flags) == EXIT_BAD_INPUT
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_records_are_one_json_object_a_line(evaluated):
    lines = (evaluated / "eval" / "scores.jsonl").read_text().splitlines()
    assert [type(json.loads(line)) for line in lines] == [dict, dict]
