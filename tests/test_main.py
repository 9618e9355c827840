"""The command line: exit codes, and one clear message for each mistake."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import config_flags
from trained_runs import SHORT

from dig_jax import main as command_line
from dig_jax.cli.flag_table import FLAGS, MODE_HELP
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, CheckpointSaveError
from dig_jax.evaluation import read_records
from dig_jax.sampling.samples import read_samples
from dig_jax.storage.checked_steps import CheckedSteps

CONFIGS = Path(__file__).parents[1] / "configs"
DIGITS = f"--config={CONFIGS / 'digits.py'}"
CIFAR10 = f"--config={CONFIGS / 'cifar10.py'}"
SUMMARY = "--mode=summary"
TWO = ["--coordinator_address=127.0.0.1:1", "--num_processes=2", "--process_id=1"]
TINY = [DIGITS, *config_flags(SHORT)]
LAST = 4  # its last step

pytestmark = pytest.mark.usefixtures("without_optimizations")


@pytest.fixture
def run(capsys):
    """Run the command line; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = command_line.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def is_announced(line):
    """Whether a line says what is waited for, or how long that took."""
    return re.fullmatch(r"(starting|loading .*)( \.\.\.| took .* s)", line) is not None


@pytest.fixture
def refuse(run):
    """Run what must be refused; returns the message."""

    def refuse(*arguments):
        code, out, err = run(*arguments)
        assert code == EXIT_BAD_INPUT
        assert out == ""
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if not is_announced(line)]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return err

    return refuse


@pytest.fixture(scope="module")
def data_dir(trained_runs):
    return trained_runs.data_dir


@pytest.fixture(scope="module")
def workdir(trained_runs, without_optimizations):
    """A trained run, not to be changed."""
    return trained_runs.workdir()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], [DIGITS, "--help"]])
def test_help_names_every_mode_and_flag(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (EXIT_DONE, "")
    for name in (*command_line.MODES, "--config=", "--workdir", "--out", "--step"):
        assert name in out
    assert tuple(MODE_HELP) == tuple(command_line.MODES)
    assert all(f"  {flag.usage}  " in out for flag in FLAGS)
    assert {mode for flag in FLAGS for mode in flag.modes} <= set(MODE_HELP)
    assert max(map(len, out.splitlines())) <= 88


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # Flags.
        ([DIGITS, "--mode=smmary"], r"mode 'smmary'\. Available: train, sample, eval"),
        ([DIGITS, SUMMARY, "--jsn"], r"'jsn'.*Available: --config, .*--json"),
        ([DIGITS, SUMMARY, "--step=x"], r"--step=x"),
        ([DIGITS, SUMMARY, "--step=-1"], r"--step=-1"),
        (
            [DIGITS, "--search_batch"],
            r"--search_batch is of --mode=compile, got --mode",
        ),
        ([DIGITS, SUMMARY, "--seeds=2"], r"--seeds is of --mode=evaluate, got --mode"),
        ([DIGITS, SUMMARY, "--workdir"], r"Missing value.*--workdir"),
        ([DIGITS, SUMMARY, "width=3"], r"--name=value, got 'width=3'"),
        ([SUMMARY], r"--config=FILE is needed"),
        ([SUMMARY, "--config"], r"--config needs a Python file"),
        ([SUMMARY, "--config=no/such.py"], r"'no/such\.py', which does not exist"),
        ([DIGITS + ":large", SUMMARY], r"digits\.py:large"),
        ([DIGITS], r"--mode=train needs --workdir=DIR"),
        (["--mode=sample"], r"--mode=sample needs --workdir=DIR"),
        (["--mode=evaluate"], r"--mode=evaluate needs --workdir=DIR"),
        # Several processes.
        (
            [DIGITS, "--num_processes=2"],
            r"--coordinator_address.*got --num_processes=2",
        ),
        ([DIGITS, "--distributed=off", *TWO], r"alone, got .*--distributed=off\.$"),
        ([DIGITS, *TWO, "--process_id=2"], r"must lie in 0 to 1 .*got 2"),
        ([DIGITS, *TWO, "--coordinator_address=h"], r"HOST:PORT.*got 'h'"),
        ([DIGITS, SUMMARY, *TWO], r"--mode=train alone.*--mode=summary drives all"),
        ([DIGITS, "--distributed=on"], r"off.*auto"),
        # Keys.
        ([DIGITS, SUMMARY, "--config.bakbone.width=3"], r"bakbone.*: backbone, data"),
        ([DIGITS, SUMMARY, "--config.backbone.widht=3"], r"widht.*depth, .*width"),
        (
            [DIGITS, SUMMARY, "--config.backbone=3"],
            r"is a section. Keys in it: .*width",
        ),
        (
            [DIGITS, SUMMARY, "--config.backbone.width.x=3"],
            r"config.backbone.width has no keys",
        ),
        ([DIGITS, SUMMARY, "--config.seed.x=3"], r"config\.seed has no keys"),
        ([DIGITS, SUMMARY, "--config.=3"], r"Unknown section"),
        ([DIGITS, SUMMARY, "--config.backbone.width"], r"width needs a value"),
        ([DIGITS, SUMMARY, "--config.backbone.width", "16"], r"'16'|needs a value"),
        # Values of a wrong type.
        ([DIGITS, SUMMARY, "--config.backbone.width=abc"], r"whole number, got 'abc'"),
        ([DIGITS, SUMMARY, "--config.backbone.width=2.5"], r"whole number, got '2\.5'"),
        ([DIGITS, SUMMARY, "--config.backbone.width=2,5"], r"width.*got \(2, 5\)"),
        ([DIGITS, SUMMARY, "--config.backbone.remat=maybe"], r"true or false.*'maybe'"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=x"], r"beta_max.*a number, got 'x'"),
        ([DIGITS, SUMMARY, "--config.data.image_size=8x16"], r"image_size.*'8x16'"),
        ([DIGITS, SUMMARY, "--config.data.image_size=8,"], r"image_size"),
        ([DIGITS, SUMMARY, "--config.seed=-1"], r"seed must be .* got -1"),
        # Values that do not exist or do not fit.
        ([DIGITS, SUMMARY, "--config.backbone.name=unet"], r"'unet'.*: .*dig_mix"),
        ([DIGITS, SUMMARY, "--config.backbone.width=0"], r"greater than 0, got 0"),
        ([DIGITS, SUMMARY, "--config.backbone.width=-4"], r"greater than 0, got -4"),
        ([DIGITS, SUMMARY, "--config.backbone.depth=3"], r"even.*got 3"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=3"], r"divisible by 3.*8x8"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=4,2"], r"ascending.*4, 2"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=()"], r"at least one"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=a,b"], r"patch_sizes.*'a,b'"),
        ([DIGITS, SUMMARY, "--config.backbone.dtype=int8"], r"'bfloat16', got 'int8'"),
        ([DIGITS, SUMMARY, "--config.data.channels=2"], r"channels.*1, 3 or 4, got 2"),
        (
            [DIGITS, SUMMARY, "--config.sde.name=ve"],
            r"'ve'\. Available: edm, .*vp_linear",
        ),
        ([DIGITS, SUMMARY, "--config.sde.beta_min=-1"], r"greater than 0, got -1"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=0.01"], r"0\.1, got 0\.01"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=inf"], r"must be finite, got inf"),
        (
            [DIGITS, SUMMARY, "--config.objective.prediction=score"],
            r"'edm', got 'score'",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else "",
)
def test_a_mistake_gets_one_line(refuse, arguments, said):
    assert re.search(said, refuse(*arguments))


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


@pytest.fixture(scope="module")
def summary():
    """What --mode=summary prints of the tiny run."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert command_line.main([*TINY, SUMMARY]) == EXIT_DONE
    return printed.getvalue()


@pytest.mark.parametrize(
    "spelling",
    [
        ["--config.backbone.patch_sizes=(4,8)"],
        ["--config.backbone.patch_sizes=4,8"],
        ["--config.backbone.patch_sizes=[4,8]"],
        ["-config.backbone.patch_sizes=4,8"],
        ["--config.backbone.remat=false"],
        ["--config.backbone.remat=0"],
        ["--config.sample.labels=0,1,2"],
        ["--config.data.image_size=8,8"],
        ["--config.data.image_size=(8,8)"],
        ["-json=false"],
    ],
)
def test_ways_to_spell_the_same_network(run, summary, spelling):
    code, out, err = run(*TINY, SUMMARY, *spelling)
    assert (code, err) == (EXIT_DONE, "")
    assert out == summary


def test_config_file_may_stand_after_a_space_or_a_single_dash(run):
    file = DIGITS.partition("=")[2]
    expected = run(DIGITS, SUMMARY)
    assert expected[0] == EXIT_DONE
    assert run("--config", file, "--mode", "summary") == expected
    assert run("-config", file, "-mode=summary") == expected


def test_images_need_not_be_square(run):
    code, out, _ = run(*TINY, SUMMARY, "--json", "--config.data.image_size=(8,16)")
    assert code == EXIT_DONE
    assert json.loads(out)["image_shape"] == [8, 16, 1]


def test_summary_as_json_has_the_graphs_own_counts(run):
    patches = "--config.backbone.patch_sizes=(2,4)"
    code, out, err = run(*TINY, SUMMARY, "--json", patches)
    assert (code, err) == (EXIT_DONE, "")
    record = json.loads(out)
    assert record["backbone"] == "dig_parallel"
    assert record["params"] > 0
    assert record["macs_per_image"] > 0
    # 4x4 and 2x2 patches, time and context.
    assert record["num_nodes"] == 16 + 4 + 2
    # Grid edges of both scales and hubs to each patch, in both directions.
    assert record["num_edges"] == 2 * (2 * 4 * 3 + 2 * 2 * 1 + 2 * 20)


def test_summary_needs_no_data(run, tmp_path):
    missing = f"--config.data.data_dir={tmp_path / 'none'}"
    assert run(CIFAR10, SUMMARY, missing)[0] == EXIT_DONE
    assert not (tmp_path / "none").exists()


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


def test_the_module_exits_with_the_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dig_jax.main", "--mode=nope", DIGITS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
    assert done.stderr.startswith("error: Unknown mode 'nope'")


def test_a_workdir_without_a_run_is_refused(refuse, tmp_path):
    for mode in ("sample", "evaluate", "summary"):
        message = refuse(f"--mode={mode}", f"--workdir={tmp_path}")
        assert "config.json is missing" in message
        assert f"--workdir={tmp_path}" in message


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "export"])
@pytest.mark.parametrize("below", ["", "run"])
def test_a_workdir_that_is_a_file_is_refused(refuse, tmp_path, mode, below):
    file = tmp_path / "file"
    file.write_text("text")
    config = TINY if mode == "train" else []
    message = refuse(*config, f"--mode={mode}", f"--workdir={file / below}")
    assert f"A folder is needed, got {file / below}: {file} is a file." in message
    assert file.read_text() == "text"


@pytest.mark.parametrize(
    ("inner", "meant"),
    [("checkpoints/2", "--step=2 "), ("checkpoints", "."), ("best/2", "--step=best ")],
)
@pytest.mark.parametrize("mode", ["train", "sample"])
def test_a_checkpoint_in_place_of_a_workdir_is_told_what_was_meant(
    refuse, tmp_path, mode, inner, meant
):
    (tmp_path / inner).mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    config = TINY if mode == "train" else []
    message = refuse(*config, f"--mode={mode}", f"--workdir={tmp_path / inner}")
    assert (
        f"say --workdir={tmp_path}{meant if meant == '.' else f' {meant}'}" in message
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="of Linux")
@pytest.mark.parametrize("mode", ["sample", "evaluate"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_drawn(
    refuse, workdir, mode
):
    # Root may write anywhere but into such a file system.
    place = ("--workdir=" + str(workdir), "--out=/proc/dig_jax")
    message = refuse(f"--mode={mode}", *place)
    assert "/proc/dig_jax cannot be written to (" in message
    assert "--out=DIR" in message


def test_a_run_is_evaluated_into_another_folder(run, workdir, tmp_path):
    code, out, err = run(
        "--mode=evaluate",
        f"--workdir={workdir}",
        f"--out={tmp_path / 'out'}",
        "--config.evaluation.features=none",
        "--config.evaluation.metrics=('copies',)",
    )
    assert code == EXIT_DONE, err
    assert f"recorded in {tmp_path / 'out' / 'eval' / 'scores.jsonl'}" in out
    (record,) = read_records(tmp_path / "out")
    assert record["samples"]["checkpoint_step"] == LAST
    assert not (workdir / "eval").exists()


def test_a_run_without_a_checkpoint_is_refused(refuse, workdir, tmp_path):
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    for folder in ("", "checkpoints", "checkpoints/2"):
        (tmp_path / folder).mkdir(exist_ok=True)  # 2: unfinished, no commit file
        message = refuse("--mode=sample", f"--workdir={tmp_path}")
        assert "checkpoint" in message
        assert "--mode=train" in message


def test_sampling_writes_what_it_says(run, workdir, tmp_path):
    code, out, _ = run("--mode=sample", f"--workdir={workdir}", f"--out={tmp_path}")
    assert code == EXIT_DONE
    assert str(tmp_path / "samples.npz") in out
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].shape == (10, 8, 8, 1)
        np.testing.assert_array_equal(samples["labels"], np.arange(10))
    assert (tmp_path / "samples.png").exists()


def test_sampling_takes_what_the_configuration_left_at_its_default(
    run, workdir, tmp_path
):
    code, _, err = run(
        "--mode=sample",
        f"--workdir={workdir}",
        f"--out={tmp_path}",
        "--config.sample.solver=dpm_solver_pp",
        "--config.sample.order=1",
        "--config.sample.guidance=2",
        "--config.sample.guidance_interval=(0.2, 0.8)",
        "--config.sample.sigma_rel=0.1",
    )
    assert code == EXIT_DONE, err
    _, provenance = read_samples(tmp_path / "samples.npz")
    assert provenance["parameters"] == "post-hoc ema 0.1"
    assert provenance["guidance"] == 2
    assert provenance["guidance_interval"] == [0.2, 0.8]
    assert (provenance["solver"], provenance["order"]) == ("dpm_solver_pp", 1)


def test_a_run_guides_another(run, workdir, tmp_path):
    code, _, err = run(
        "--mode=sample",
        f"--workdir={workdir}",
        f"--out={tmp_path}",
        "--config.sample.guidance=1.5",
        f"--config.sample.guide={workdir}",
    )
    assert code == EXIT_DONE, err
    assert read_samples(tmp_path / "samples.npz")[1]["guide_step"] == LAST


@pytest.fixture
def own_workdir(workdir, tmp_path):
    """A copy of the run that may be changed."""
    shutil.copytree(workdir, tmp_path / "run")
    return tmp_path / "run"


def test_evaluation_records_and_prints_scores(run, own_workdir):
    evaluate = ("--mode=evaluate", f"--workdir={own_workdir}")
    code, out, _ = run(*evaluate)
    assert code == EXIT_DONE
    (record,) = read_records(own_workdir)
    assert record["samples"]["checkpoint_step"] == LAST
    assert f"{record['scores']['frechet_pixels']['value']:.4f}" in out
    # The images were kept: nothing is drawn again, and the scores are the same.
    code, out, _ = run(*evaluate, "--config.evaluation.metrics=('copies',)")
    assert code == EXIT_DONE
    assert "drawn before" in out
    again = read_records(own_workdir)[1]
    assert again["samples"] == record["samples"]
    assert again["scores"]["fd_digits10"] == record["scores"]["fd_digits10"]


KILLED_AFTER_TWO_BATCHES = """
import os, signal, sys
from dig_jax.main import main
from dig_jax.sampling.store import SampleStore

append = SampleStore.append

def append_and_die(store, images):
    append(store, images)
    if store.num_images == 32:
        os.kill(os.getpid(), signal.SIGKILL)

SampleStore.append = append_and_die
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_evaluation_goes_on_to_the_same_scores(own_workdir, monkeypatch):
    """SIGKILL when the first batches are on disk, then the same command again."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # to compile quickly
    arguments = [
        "--mode=evaluate",
        f"--workdir={own_workdir}",
        "--config.evaluation.features=none",
        "--config.sample.num_images=96",
        "--config.sample.num_steps=4",
        "--config.sample.batch_size=16",
    ]

    def run(*how):
        command = [sys.executable, *how, *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    done = run("-m", "dig_jax.main")
    assert done.returncode == EXIT_DONE, done.stderr
    shutil.rmtree(own_workdir / "eval" / "samples")
    killed = run("-c", KILLED_AFTER_TWO_BATCHES)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run("-m", "dig_jax.main")
    assert again.returncode == EXIT_DONE, again.stderr
    assert "Going on: 32 of 96 images were drawn before" in again.stdout
    first, second = read_records(own_workdir)
    assert first["scores"] == second["scores"]
    assert done.stdout.splitlines()[0] in again.stdout


def test_evaluation_of_three_seeds_ends_with_their_mean(run, own_workdir):
    code, out, _ = run("--mode=evaluate", f"--workdir={own_workdir}", "--seeds=3")
    assert code == EXIT_DONE
    assert "over 3 seeds" in out
    *seeds, mean = read_records(own_workdir)
    assert [record["samples"]["seed"] for record in seeds] == [0, 1, 2]
    values = [record["scores"]["frechet_pixels"]["value"] for record in seeds]
    assert len(set(values)) == 3
    assert mean["scores"]["frechet_pixels"]["value"] == pytest.approx(np.mean(values))


def test_images_of_others_are_evaluated_like_ours(run, own_workdir, data_dir, tmp_path):
    mine = ("--mode=sample", f"--workdir={own_workdir}", "--adm")
    assert run(*mine)[0] == EXIT_DONE
    assert not (own_workdir / "unfinished_samples").exists()
    theirs = (
        "--mode=evaluate",
        DIGITS,
        f"--config.data.data_dir={data_dir}",
        "--config.evaluation.features=none",
        f"--out={tmp_path}",
    )
    for name in ("samples.npz", "samples_adm.npz"):
        assert run(*theirs, f"--samples={own_workdir / name}")[0] == EXIT_DONE
    ours, adm = read_records(tmp_path)
    assert ours["scores"] == adm["scores"]
    assert ours["samples"]["checkpoint_step"] == LAST


def test_samples_that_cannot_be_evaluated_are_refused(refuse, data_dir, tmp_path):
    np.savez(tmp_path / "bad.npz", arr_0=np.full((4, 8, 8, 1), np.nan, np.float32))
    arguments = ("--mode=evaluate", DIGITS, f"--config.data.data_dir={data_dir}")
    message = refuse(*arguments, f"--samples={tmp_path / 'bad.npz'}")
    assert re.search(r"uint8 pixels.*float32, 256 of 256 not finite", message)
    np.savez(tmp_path / "ok.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    message = refuse(*arguments, f"--samples={tmp_path / 'ok.npz'}")
    assert re.search(r"place for its records: --out=DIR or --workdir", message)


def test_statistics_written_twice_are_the_same_file(run, workdir, data_dir, tmp_path):
    """From the run and from its configuration file."""
    stats = "--mode=stats"
    first = run(stats, f"--workdir={workdir}", f"--out={tmp_path / 'a.npz'}")
    config = (DIGITS, f"--config.data.data_dir={data_dir}")
    second = run(stats, *config, f"--out={tmp_path / 'b.npz'}")
    assert first[0] == second[0] == EXIT_DONE
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert "1,500 images of digits, split train" in first[1]
    digest = re.search(r"sha256 ([0-9a-f]{64})", first[1])
    assert digest is not None
    assert digest[1] in second[1]


def test_statistics_need_a_network_and_a_split(refuse, data_dir):
    stats = ("--mode=stats", DIGITS, f"--config.data.data_dir={data_dir}")
    message = refuse(*stats, "--config.evaluation.features=none")
    assert re.search(r"inception_weights=FILE", message)
    assert re.search(r"'holdout'.*test, train", refuse(*stats, "--split=holdout"))


def test_there_is_no_best_checkpoint_without_evaluations(refuse, workdir):
    message = refuse("--mode=sample", f"--workdir={workdir}", "--step=best")
    assert re.search(r"training\.keep_best and training\.evaluate_every", message)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.sample.labels=12"], r"0 to 9, got 12"),
        (["--config.sample.solver=x"], r"'x'\. Available: .*euler_maruyama"),
        (["--config.backbone.width=32"], r"backbone\.width: 16 -> 32"),
        (["--step=7"], rf"step 7.*Available: {LAST}"),
        (["--config.sample.order=2"], r"euler_maruyama takes no option 'order'"),
        (["--config.sample.ordr=2"], r"config\.sample\.ordr. Available: .*order"),
        (["--config.sample.time_grid=x"], r"'x'. Available: karras"),
        (["--config.sample.guidance=-1"], r"0 or more"),
        (["--config.sample.sigma_rel=0.7"], r"0\.01 to 0\.25, got 0\.7"),
        (["--config.sample.guide=nowhere"], r"No run in nowhere"),
    ],
)
def test_sampling_refuses_what_the_run_is_not(refuse, workdir, arguments, said):
    message = refuse("--mode=sample", f"--workdir={workdir}", *arguments)
    assert re.search(said, message)


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


def test_a_damaged_checkpoint_is_told_without_a_traceback(run, workdir, tmp_path):
    shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    for path in (tmp_path / "checkpoints" / str(LAST) / "ema").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, _, err = run("--mode=sample", f"--workdir={tmp_path}")
    assert code == EXIT_BAD_INPUT
    assert "Traceback" not in err
    assert re.search(r"error: .*checkpoint.* damaged", err)


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
