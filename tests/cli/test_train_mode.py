"""--mode=train, and what it refuses before it writes."""

import re

import jax
import pytest
from tiny_flags import CIFAR10, CONFIGS, LAST, TINY, TWO

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, CheckpointSaveError
from dig_jax.storage.checked_steps import CheckedSteps

pytestmark = pytest.mark.usefixtures("without_optimizations")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.num_steps=0", r"training\.num_steps must be greater than 0, got 0"),
        ("training.num_steps=-5", r"training\.num_steps .* got -5"),
        ("training.batch_size=0", r"training\.batch_size .* got 0"),
        ("training.ema_decay=1.0", r"ema_decay must lie in \[0, 1\), got 1\.0"),
        ("training.ema_decay=-0.1", r"ema_decay .* got -0\.1"),
        ("optimizer.betas=(0.9,1.0)", r"betas must lie in \[0, 1\), got \(0\.9, 1\.0"),
        ("optimizer.betas=(0.9,)", r"optimizer\.betas"),
        ("optimizer.learning_rate=0.0", r"learning_rate .* greater than 0, got 0"),
        ("optimizer.schedule=linear", r"'constant' or 'cosine', got 'linear'"),
        ("sample.solver=euler", r"'euler'\. Available: .*euler_maruyama"),
        ("sample.num_steps=0", r"sample\.num_steps .* got 0"),
        ("sample.num_images=0", r"sample\.num_images .* got 0"),
        ("sample.batch_size=-1", r"sample\.batch_size .* got -1"),
        ("sample.t_end=1.0", r"t_end=1\.0"),
        ("sample.labels=10", r"labels must lie in 0 to 9, got 10"),
        ("sample.labels=0,11,-1", r"0 to 9, got 11, -1"),
        ("sample.labels=some", r"balanced, .*got 'some'"),
        ("evaluation.metrics=('fid',)", r"'fid'.*Available: copies, "),
        ("mesh.data=0", r"mesh\.data must be -1"),
        ("mesh.data=99", r"mesh\.data must be -1 .*got 99"),
        ("data.random_flip=true", r"random_flip must be False for 'digits'"),
        ("data.name=minst", r"'minst'\. Available: .*cifar10, .*digits"),
        ("data.image_size=16", r"8x8x1.*got image_size=16"),
        ("data.image_size=(8,16)", r"8x8x1.*got image_size=\(8, 16\)"),
        ("backbone.num_classes=7", r"num_classes must be 0 .* or 10.*got 7"),
    ],
)
def test_training_refuses_before_it_writes(refuse, tmp_path, data_dir, override, said):
    message = refuse(
        *TINY,
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={data_dir}",
        f"--config.{override}",
    )
    assert re.search(said, message)
    assert not (tmp_path / "run").exists()


def test_labels_for_an_unconditional_backbone_are_refused(refuse, tmp_path):
    message = refuse(
        *TINY,
        f"--workdir={tmp_path}",
        "--config.backbone.num_classes=0",
        "--config.objective.label_dropout=0",
        "--config.sample.labels=3",
    )
    assert "unconditional" in message
    assert "'3'" in message


def test_a_batch_that_does_not_spread_over_the_devices_is_refused(
    refuse, tmp_path, monkeypatch
):
    device = jax.devices()[0]
    monkeypatch.setattr(jax, "devices", lambda: [device] * 4)
    message = refuse(
        *TINY,
        f"--workdir={tmp_path}",
        "--config.mesh.data=-1",
        "--config.training.batch_size=6",
    )
    assert re.search(
        r"batch_size must be a multiple of the 4 .*got 6.*1, 2, 3", message
    )


def test_a_data_set_that_is_not_prepared_is_refused_with_the_command(run, tmp_path):
    code, out, err = run(
        CIFAR10,
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.data_dir={tmp_path / 'data'}",
        "--config.backbone.width=16",
        "--config.backbone.depth=2",
    )
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert "Traceback" not in err
    assert str(tmp_path / "data") in err
    assert "python -m dig_jax.prepare cifar10" in err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
    run, tmp_path, data_dir, monkeypatch
):
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("looked for devices"))
    command = [*TINY, f"--config.data.data_dir={data_dir}", *TWO, "--dry_run"]
    code, out, err = run(*command, f"--workdir={tmp_path / 'run'}")
    assert (code, err) == (EXIT_DONE, "")
    assert re.search(
        r"would train steps 1 to 4 of dig_parallel, .*M parameters, on [\d,]+ images "
        r"of digits \(8x8x1, 10 classes\), batch size \d+, workdir .*/run\. Nothing",
        out,
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_knows_the_run_that_is_there(run, refuse, workdir, data_dir):
    here = [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}", "--dry_run"]
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.*")}
    code, out, _ = run(*TINY, *here, "--config.training.num_steps=6")
    assert code == EXIT_DONE
    assert "would train steps 5 to 6 of" in out
    assert "changed: training.num_steps: 4 -> 6" in out
    assert "another configuration" in refuse(*TINY, *here, "--config.seed=9")
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*.*")}


def test_a_dry_run_finds_that_data_are_missing(run, tmp_path):
    config = [CIFAR10, f"--config.data.data_dir={tmp_path}", "--dry_run"]
    code, out, err = run(*config, f"--workdir={tmp_path / 'run'}")
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert "Data set 'cifar10' must be prepared" in err


def test_training_on_in_a_workdir_of_another_config_is_refused(
    refuse, workdir, data_dir
):
    message = refuse(
        *TINY,
        f"--workdir={workdir}",
        f"--config.data.data_dir={data_dir}",
        "--config.seed=3",
        "--config.optimizer.learning_rate=0.5",
        "--config.backbone.conv=gcn",
    )
    assert re.search(
        r"conv: 'sage' -> 'gcn'; optimizer\.learning_rate: \S+ -> 0\.5; seed: 0 -> 3\.",
        message,
    )


# A key that the run's own configuration does not have, at its default.
@pytest.mark.parametrize("new_key", [[], ["--config.backbone.conv=sage"]])
def test_a_finished_run_has_nothing_to_do(run, workdir, data_dir, new_key):
    code, out, err = run(
        *TINY, f"--workdir={workdir}", f"--config.data.data_dir={data_dir}", *new_key
    )
    assert code == EXIT_DONE, err
    assert f"step {LAST} of {LAST} is done" in out


def test_a_full_disk_is_told_without_a_traceback(run, tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(CheckedSteps, "_free_bytes", lambda self: 0)
    code, _, err = run(
        *TINY, f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}"
    )
    assert code == EXIT_BAD_INPUT
    assert "Traceback" not in err
    assert "error: not enough disk" in err


def test_a_checkpoint_that_cannot_be_written_is_told_without_a_traceback(
    refuse, tmp_path, monkeypatch
):
    def fail(*_):
        raise CheckpointSaveError("The checkpoint of step 2 could not be saved.")

    monkeypatch.setattr("dig_jax.training.loop.TrainingRun.train", fail)
    assert "could not be saved" in refuse(*TINY, f"--workdir={tmp_path}")


def test_a_workdir_that_cannot_be_made_is_told_without_a_traceback(
    run, tmp_path, data_dir
):
    (tmp_path / "file").write_text("")
    code, _, err = run(
        *TINY,
        f"--workdir={tmp_path / 'file' / 'run'}",
        f"--config.data.data_dir={data_dir}",
    )
    assert code == EXIT_BAD_INPUT
    assert "Traceback" not in err
    assert str(tmp_path / "file") in err


def test_a_paper_config_runs_a_step_on_synthetic_images_of_its_shape(run, tmp_path):
    code, _, err = run(
        f"--config={CONFIGS / 'imagenet64.py'}",
        f"--workdir={tmp_path}",
        "--config.data.name=synthetic",
        "--config.backbone.width=16",
        "--config.backbone.depth=2",
        "--config.backbone.hops=1",
        "--config.backbone.patch_sizes=(8,)",
        "--config.training.batch_size=2",
        "--config.training.num_steps=1",
        "--config.training.samples_per_class=1",
        "--config.training.diversity_every=0",
        "--config.sample.num_steps=1",
    )
    assert code == EXIT_DONE, err
    assert (tmp_path / "samples" / "step_1.png").exists()
