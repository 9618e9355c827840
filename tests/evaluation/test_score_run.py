"""An evaluation from Python is the command's, and one at a time works in a workdir."""

import os
import shutil

import numpy as np
import pytest

from dig_jax import load
from dig_jax import main as command_line
from dig_jax.data.loader import read_images
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import read_records
from dig_jax.experiment.images import open_dataset
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics import METRICS, score
from dig_jax.storage.workdir_lock import EVALUATE, SAMPLE, TRAIN, only_run

pytestmark = pytest.mark.usefixtures("without_optimizations")


@pytest.fixture
def own_workdir(trained_runs, without_optimizations, tmp_path):
    """A copy of a trained run."""
    shutil.copytree(trained_runs.workdir(), tmp_path / "run")
    return tmp_path / "run"


def files_of(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def without_clock(record):
    return {k: v for k, v in record.items() if k not in ("time", "seconds")}


def test_an_evaluation_from_python_is_the_commands(own_workdir, capsys):
    flags = ["--mode=evaluate", f"--workdir={own_workdir}", "--seeds=2"]
    assert command_line.main(flags) == EXIT_DONE
    expected = [without_clock(record) for record in read_records(own_workdir)]
    shutil.rmtree(own_workdir / "eval")
    before = files_of(own_workdir)
    capsys.readouterr()
    run = load(own_workdir)
    unkept = run.evaluate(seeds=2, keep=False)
    assert [without_clock(record) for record in unkept] == expected
    assert files_of(own_workdir) == before
    kept = run.evaluate(seeds=(0, 1))
    assert [without_clock(record) for record in kept] == expected
    assert read_records(own_workdir) == kept
    assert capsys.readouterr().out == ""
    # What was drawn before is not drawn again, and may be scored by less.
    run.evaluate(5, metrics=["copies"], features="none", silent=False)
    last = read_records(own_workdir)[-1]
    assert "drawn before" in capsys.readouterr().out
    assert (last["num_images"], list(last["scores"])) == (5, ["copied_share"])


def test_the_images_scored_are_those_that_are_asked_for(own_workdir):
    run = load(own_workdir)
    (record,) = run.evaluate(
        20, sample={"labels": 3, "seed": 7}, keep=False, features="none"
    )
    assert (record["samples"]["labels"], record["samples"]["seed"]) == (3, 7)
    images = run.sample(20, labels=3, seed=7)
    drawn = LabelledImages(images, np.full(20, 3, np.int32))
    train = read_images(open_dataset(run.experiment, "train"))
    expected = score(METRICS, drawn, train)
    found = {name: entry["value"] for name, entry in record["scores"].items()}
    assert found == expected


def test_seeds_that_are_none_are_refused(own_workdir):
    run = load(own_workdir)
    for seeds in (0, -1, (), (1, 1), (-1,)):
        with pytest.raises(InputError, match="seeds must be how many"):
            run.evaluate(seeds=seeds)
    assert not (own_workdir / "eval").exists()


def test_an_option_that_is_none_is_refused(own_workdir):
    with pytest.raises(InputError, match=r"featurs.*Available: .*features"):
        load(own_workdir).evaluate(featurs="none")


@pytest.mark.parametrize(
    ("mode", "purpose"), [("evaluate", EVALUATE), ("sample", SAMPLE)]
)
def test_the_second_is_refused_and_told_who_is_first(
    own_workdir, capsys, mode, purpose
):
    command = [f"--mode={mode}", f"--workdir={own_workdir}"]
    with only_run(own_workdir, purpose):
        before = files_of(own_workdir)
        assert command_line.main(command) == EXIT_BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {own_workdir} {purpose.doing}, process ")
    assert f"process {os.getpid()} on " in said
    assert files_of(own_workdir) == before


def test_who_evaluates_and_who_draws_are_not_in_anybodys_way(own_workdir, tmp_path):
    """Beside a trainer, beside one another, and into folders of their own."""
    run = load(own_workdir)
    with only_run(own_workdir, TRAIN), only_run(own_workdir, SAMPLE):
        assert len(run.evaluate(features="none")) == 1
    with only_run(own_workdir, SAMPLE), only_run(own_workdir, EVALUATE):
        assert len(run.evaluate(features="none", keep=False)) == 1
        assert len(run.drawing().write(tmp_path / "out")) == 2
