"""--mode=evaluate and --mode=stats: scores are printed, kept, and gone on with."""

import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_flags import DIGITS, LAST

from dig_jax.errors import EXIT_DONE
from dig_jax.evaluation import read_records

pytestmark = pytest.mark.usefixtures("without_optimizations")


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
    for out in (data_dir, data_dir / "statistics"):
        assert f"ends in .npz, got {out}" in refuse(*stats, f"--out={out}")
