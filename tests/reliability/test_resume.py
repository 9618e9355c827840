"""A resumed run says whether it goes on exactly, and refuses what is another run."""

import json
import shutil
import time

import jax
import numpy as np
import pytest
import tiny_runs

from dig_jax.data import create_dataset
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.experiment import create_experiment
from dig_jax.files.checked_json import sha256_of
from dig_jax.main import main
from dig_jax.reporting.goodput import Goodput, read_goodput
from dig_jax.reporting.profile import (
    ProfileSteps,
    check_profile_steps,
    parse_profile_steps,
)
from dig_jax.reporting.progress import Progress
from dig_jax.training import environment
from dig_jax.training.environment import describe_environment, describe_resume
from dig_jax.training.loop import TrainingRun, train
from dig_jax.training.setup import TrainingSetup
from dig_jax.training.storage import Storage
from dig_jax.versions import package_versions

STEPS = {"training.num_steps": 6, "training.checkpoint_every": 3}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="module")
def traced(tmp_path_factory, data_dir):
    """A run of six steps, two of them traced, with slow saves and batches.

    Returns its workdir and its wall time.
    """
    save, place = Storage.save, TrainingSetup.place

    def slow_save(self, *rest):
        time.sleep(0.5)
        save(self, *rest)

    def slow_place(self, batch):
        time.sleep(0.25)
        return place(self, batch)

    workdir = tmp_path_factory.mktemp("run") / "traced"
    experiment = create_experiment(tiny_runs.tiny_config(data_dir, **STEPS))
    began = time.monotonic()
    run = TrainingRun(experiment, workdir, profile_steps=ProfileSteps(3, 4))
    with pytest.MonkeyPatch.context() as patch, Progress(6) as progress:
        patch.setattr(Storage, "save", slow_save)
        patch.setattr(TrainingSetup, "place", slow_place)
        assert run.train(progress) == EXIT_DONE
    return workdir, time.monotonic() - began


@pytest.fixture
def workdir(traced, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(traced[0], tmp_path / "run")


def edit_meta(workdir, edit):
    """Change the record of the newest checkpoint, and its checksum with it."""
    path = workdir / "checkpoints" / "6" / "meta" / "metadata"
    record = json.loads(path.read_text())["record"]
    edit(record)
    path.write_text(json.dumps({"sha256": sha256_of(record), "record": record}))


def go_on(workdir, data_dir, **changes):
    config = tiny_runs.tiny_config(data_dir, **STEPS, **changes)
    return train(create_experiment(config), workdir)


def test_the_same_environment_is_an_exact_resume(workdir, data_dir, capsys):
    assert go_on(workdir, data_dir) == EXIT_DONE
    assert "  exact resume\n" in capsys.readouterr().out


def test_what_changed_makes_a_close_resume(workdir, data_dir, capsys, monkeypatch):
    def edit(record):
        record["environment"]["jaxlib"] = "0.0.1"
        record["environment"]["mesh"] = {"data": 2, "fsdp": 4}

    edit_meta(workdir, edit)
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2 --xla_a=1 --xla_dump_to=/x")
    assert go_on(workdir, data_dir, **{"backbone.aggregation": "dense"}) == EXIT_DONE
    now = package_versions()["jaxlib"]
    assert (
        f"  close resume: jaxlib changed from 0.0.1 to {now}; mesh changed from 2 data "
        f"x 4 fsdp to 1 device; XLA_FLAGS changed from none to --xla_a=1 --xla_b=2; "
        f"backbone.aggregation changed from auto to dense\n"
    ) in capsys.readouterr().out


def test_a_checkpoint_without_its_environment_is_read_and_said_to_be_so(
    workdir, data_dir, capsys
):
    edit_meta(workdir, lambda record: record.pop("environment"))
    assert go_on(workdir, data_dir) == EXIT_DONE
    out = capsys.readouterr().out
    assert "close resume: the checkpoint is of a dig_jax that did not yet note" in out


@pytest.mark.parametrize("schema", [2, None])
def test_an_unknown_schema_ends_with_one_line(workdir, data_dir, capsys, schema):
    def edit(record):
        record["schema"] = schema

    edit_meta(workdir, edit)
    code = main(
        [
            f"--workdir={workdir}",
            *tiny_runs.tiny_flags(data_dir, **STEPS),
        ]
    )
    assert code == EXIT_BAD_INPUT
    err = capsys.readouterr().err
    assert f"schema {schema}; this version of dig_jax reads schema 1. Use" in err
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["3", "6"]


def test_the_code_that_computes_is_part_of_the_environment(
    tmp_path, data_dir, monkeypatch
):
    def described():
        experiment = create_experiment(tiny_runs.tiny_config(data_dir))
        return describe_environment(experiment, experiment.mesh)

    before = described()
    assert described() == before
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "step.py").write_text("loss = 0\n")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    monkeypatch.setattr(environment, "COMPUTING_CODE", ("training/step.py",))
    meta = {"environment": before, "versions": package_versions()}
    assert "close resume: dig_jax's code changed" in describe_resume(meta, described())


def test_other_data_is_refused(workdir, tmp_path, data_dir):
    """Digits without their last images: as many images a batch, another order."""
    source = create_dataset("digits", data_dir=str(data_dir))
    images = np.stack([source[i]["image"] for i in range(64)])
    labels = np.array([source[i]["label"] for i in range(64)])
    np.savez(tmp_path / "train.npz", images=images, labels=labels)

    def edit(record):
        record["data"]["fingerprint"] = "of other digits"

    edit_meta(workdir, edit)
    with pytest.raises(InputError, match=r"trained on other data.*of other digits"):
        go_on(workdir, data_dir)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"training.batch_size": 16}, r"batch_size: 8 -> 16"),
        ({"data.name": "synthetic"}, r"data\.name: 'digits' -> 'synthetic'"),
        ({"optimizer.learning_rate": 0.1}, r"learning_rate: 0\.003 -> 0\.1"),
        ({"optimizer.schedule": "constant"}, r"'cosine' -> 'constant'"),
        ({"backbone.dtype": "bfloat16"}, r"'float32' -> 'bfloat16'"),
    ],
)
def test_another_run_is_refused(traced, data_dir, change, said):
    with pytest.raises(InputError, match=said):
        go_on(traced[0], data_dir, **change)


def test_the_kinds_of_time_add_up_to_the_wall_time(traced):
    workdir, wall = traced
    (line,) = read_goodput(workdir)
    assert line["end"] == "in order"
    assert (line["first_step"], line["last_step"]) == (0, 6)
    assert line["wall_seconds"] == pytest.approx(sum(line["seconds"].values()))
    assert line["wall_seconds"] <= wall
    for kind in ("productive", "start", "compile", "drawing"):
        assert line["seconds"][kind] > 0, kind
    assert line["seconds"]["checkpoint"] >= 2 * 0.5
    assert line["seconds"]["data_wait"] >= 6 * 0.25
    assert line["seconds"]["lost"] == line["seconds"]["evaluation"] == 0


def test_a_trace_has_the_steps_asked_for_and_no_other(traced):
    workdir, _ = traced
    (folder,) = (workdir / "profile" / "plugins" / "profile").iterdir()
    assert (folder / "perfetto_trace.json.gz").stat().st_size > 0
    (file,) = folder.glob("*.xplane.pb")
    found = {
        dict(event.stats)["step_num"]
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    }
    assert found == {3, 4}


def test_a_run_past_the_steps_to_trace_goes_on(traced, data_dir, tmp_path):
    run = TrainingRun(
        create_experiment(tiny_runs.tiny_config(data_dir, **STEPS)),
        shutil.copytree(traced[0], tmp_path / "run"),
        profile_steps=ProfileSteps(1, 2),
        goodput=Goodput(),
    )
    with Progress(6, silent=True) as progress:
        assert run.train(progress) == EXIT_DONE


@pytest.mark.parametrize(
    "text", ["", "10", "10:", ":15", "0:3", "15:10", "-1:4", "a:b"]
)
def test_steps_to_trace_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=rf"FIRST:LAST.*got {text!r}"):
        parse_profile_steps(text)


def test_steps_to_trace_must_be_the_runs(tmp_path, capsys):
    assert parse_profile_steps("10:15") == (10, 15)
    check_profile_steps(ProfileSteps(10, 15), 15)
    with pytest.raises(InputError, match=r"1 to 14, the run's steps, got 10:15"):
        check_profile_steps(ProfileSteps(10, 15), 14)
    arguments = ("--mode=sample", f"--workdir={tmp_path}", "--profile_steps=1:2")
    assert main(list(arguments)) == EXIT_BAD_INPUT
    assert (
        "--profile_steps goes with --mode=train, and --mode=" in capsys.readouterr().err
    )
