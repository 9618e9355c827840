"""What each mode says of a workdir that is none, or cannot be written."""

import re
import shutil
from pathlib import Path

import pytest
from tiny_flags import LAST, TINY

from dig_jax.config import (
    PARTS_OF_COMPARISON,
    load_run_config,
    save_run_config,
    with_values,
)
from dig_jax.errors import EXIT_BAD_INPUT, InputError
from dig_jax.files.checked_json import write_checked
from dig_jax.run import load

pytestmark = pytest.mark.usefixtures("without_optimizations")


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


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "export", "demo"])
def test_a_comparison_in_place_of_a_run_is_told_where_its_runs_are(
    refuse, tmp_path, mode
):
    write_checked(tmp_path / "config.json", {part: {} for part in PARTS_OF_COMPARISON})
    config = TINY if mode == "train" else []
    command = (*config, f"--mode={mode}", f"--workdir={tmp_path}")
    assert "none is there yet" in refuse(*command)
    for name in ("dig-0", "dig-1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    message = refuse(*command)
    assert "holds a comparison, not a run: its runs are in" in message
    assert f"runs/NAME-SEED (--workdir={tmp_path}/runs/dig-0)" in message
    assert "--mode=compare and --mode=report" in message
    with pytest.raises(InputError, match="holds a comparison"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("backbone.num_hops", 2), ("backbone.name", "dig_first")]
)
def test_a_run_of_another_version_is_told_as_such(
    refuse, workdir, tmp_path, key, value
):
    config = with_values(load_run_config(workdir), {key: value})
    save_run_config(config, tmp_path)
    said = rf"run in {tmp_path} was made by an older .*config\.{key}"
    assert re.search(said, refuse("--mode=summary", f"--workdir={tmp_path}"))
    with pytest.raises(InputError, match=said):
        load(tmp_path)


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


def test_a_run_without_a_checkpoint_is_refused(refuse, workdir, tmp_path):
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    for folder in ("", "checkpoints", "checkpoints/2"):
        (tmp_path / folder).mkdir(exist_ok=True)  # 2: unfinished, no commit file
        message = refuse("--mode=sample", f"--workdir={tmp_path}")
        assert "checkpoint" in message
        assert "--mode=train" in message


def test_there_is_no_best_checkpoint_without_evaluations(refuse, workdir):
    message = refuse("--mode=sample", f"--workdir={workdir}", "--step=best")
    assert re.search(r"training\.keep_best and training\.evaluate_every", message)


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
