"""A run killed between a save and what follows it ends as one that was not."""

import shutil
from contextlib import contextmanager

import pytest
from processes import digits_flags
from trained_runs import SHORT

from dig_jax import load
from dig_jax import main as command_line
from dig_jax.errors import EXIT_DONE, NonFiniteError
from dig_jax.evaluation import read_records
from dig_jax.options import SampleOptions
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.training.preview import Preview, of_training
from dig_jax.training.scoring import TrainingScores
from dig_jax.training.storage import Storage

pytestmark = pytest.mark.usefixtures("without_optimizations")

EVALUATED = {
    "seed": 1,  # of which the second evaluation is the better one
    "training.evaluate_every": 2,
    "training.checkpoint_every": 2,
    "training.sample_every": 2,
    "training.evaluate_images": 20,
    "training.keep_best": "frechet_pixels",
    "evaluation.metrics": ("frechet_pixels",),
    "evaluation.features": "none",
}
HALF = {"training.num_steps": 2}
# What is called first of all that is lost: the picture, with all that follows; the
# scores' row; the place of the best one.
MOMENTS = {
    "picture": (Preview, "draw"),
    "row": (MetricWriter, "write"),
    "best": (Storage, "save_best"),
}


class Killed(BaseException):
    """The end of a process; what it has saved is on disk."""


def train(trained_runs, workdir, *changes):
    flags = digits_flags(trained_runs.data_dir, SHORT, EVALUATED, *changes)
    return command_line.main([*flags, f"--workdir={workdir}"])


@contextmanager
def killed_at(moment, step):
    """The run ends where it would do something after a step."""
    owner, name = MOMENTS[moment]
    real, save, saved = getattr(owner, name), Storage.save, []

    def note(storage, state, meta):
        save(storage, state, meta)
        storage.wait()
        saved.append(int(state.step))

    def die(*arguments, **keywords):
        if saved[-1:] == [step] and (moment != "row" or is_of_scores(arguments[-1])):
            raise Killed
        return real(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "save", note)
        patch.setattr(owner, name, die)
        with pytest.raises(Killed):
            yield


def is_of_scores(row):
    return any(name.startswith("score/") for name in row)


def what_is_left(workdir):
    """All that evaluations and drawing leave."""
    records = [
        (record["samples"]["checkpoint_step"], record["num_images"], record["scores"])
        for record in read_records(workdir)
    ]
    rows = [
        {k: v for k, v in row.items() if k.startswith(("step", "score/"))}
        for row in read_metrics(workdir)
        if is_of_scores(row)
    ]
    pictures = {
        path.name: path.read_bytes() for path in (workdir / "samples").iterdir()
    }
    with Checkpoints(workdir / "best", read_only=True) as best:
        told = best.read_meta()["best"]
    run = load(workdir, step="best")
    return records, rows, pictures, told, run.step, run.parameters_digest


@pytest.fixture(scope="module")
def expected(trained_runs, without_optimizations):
    left = what_is_left(trained_runs.workdir(EVALUATED))
    assert left[4] == 4, "the best is not the last: take another seed"
    return left


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_kill_after_the_last_save_cost_is_made_up(
    trained_runs, expected, tmp_path, capsys, moment
):
    workdir = tmp_path / "run"
    shutil.copytree(trained_runs.workdir(EVALUATED, HALF), workdir)
    with killed_at(moment, 4):
        train(trained_runs, workdir)
    assert what_is_left(workdir) != expected
    assert train(trained_runs, workdir) == EXIT_DONE
    out = capsys.readouterr().out
    assert "step 4: making up what was due and is missing" in out
    assert "Nothing to do: step 4 of 4" in out
    assert what_is_left(workdir) == expected


def test_what_a_kill_in_the_middle_cost_is_made_up_before_it_goes_on(
    trained_runs, expected, tmp_path, capsys
):
    workdir = tmp_path / "run"
    with killed_at("picture", 2):
        train(trained_runs, workdir)
    assert not (workdir / "eval").exists()
    assert train(trained_runs, workdir) == EXIT_DONE
    assert "step 2: making up what was due" in capsys.readouterr().out
    assert what_is_left(workdir) == expected


def test_an_evaluation_by_hand_is_none_of_training(trained_runs, expected, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_runs.workdir(EVALUATED), workdir)
    run = load(workdir)
    experiment, options = run.experiment, run.experiment.training
    scores = TrainingScores(
        experiment, experiment.evaluation, experiment.sample, options, run.mesh
    )
    with Storage(workdir, options) as storage:
        assert not scores.is_missing(2, storage, workdir)
        assert not scores.is_missing(4, storage, workdir)
        assert not scores.is_missing(3, storage, workdir)  # none is due
        path = workdir / "eval" / "scores.jsonl"
        path.write_text(f"{path.read_text().splitlines()[0]}\n")  # of step 2
        run.evaluate()
        assert len(read_records(workdir)) == 2
        assert not scores.is_missing(2, storage, workdir)
        assert scores.is_missing(4, storage, workdir)


def test_a_best_checkpoint_that_is_damaged_is_looked_for_anew(trained_runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained_runs.workdir(EVALUATED), workdir)
    (meta,) = (workdir / "best").glob("*/meta/metadata")
    meta.write_text("{")
    with Storage(workdir, load(workdir).experiment.training) as storage:
        assert storage.read_best() is None
    assert not list((workdir / "best").glob("[0-9]*"))


def test_images_that_are_not_finite_do_not_end_a_training(
    trained_runs, tmp_path, capsys, monkeypatch
):
    def overflow(*arguments, **keywords):
        raise NonFiniteError("an image is not finite")

    monkeypatch.setattr(Sampler, "draw", overflow)
    monkeypatch.setattr(TrainingScores, "_draw_and_score", overflow)
    for _ in range(2):  # and what is missing is tried again, and passed over
        assert train(trained_runs, tmp_path) == EXIT_DONE
        said = capsys.readouterr().out
        assert "step 4: not drawn: an image is not finite" in said
        assert "step 4: not evaluated: an image is not finite" in said
    assert load(tmp_path).step == 4


def test_training_draws_with_its_own_averages_and_no_guide():
    options = SampleOptions(guide="runs/other", guidance=2.0, sigma_rel=0.1, order=2)
    assert of_training(options) == SampleOptions(order=2)
