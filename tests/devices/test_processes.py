"""Whole runs in several processes on loopback: they agree, stop, fail and go on."""

import re
import signal

import jax
import numpy as np
import processes
import pytest
from processes import Started, digits_config, digits_flags

from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_NON_FINITE,
    EXIT_PEER_FAILURE,
    EXIT_WATCHDOG,
)
from dig_jax.evaluation import flat_scores, read_records
from dig_jax.experiment import create_experiment
from dig_jax.files.paths import open_path
from dig_jax.options import OptimizerOptions
from dig_jax.reporting.metric_writer import read_metrics
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.fingerprint import named_leaves
from dig_jax.storage.posthoc_ema import open_snapshots
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state

NUM_STEPS = 40
TINY = {
    **processes.TINY,
    "training.num_steps": NUM_STEPS,
    "training.log_every": 1,
    "training.checkpoint_every": 10,
    "training.diversity_every": 20,
    "training.evaluate_every": 20,
    "training.evaluate_images": 32,
    "training.keep_best": "frechet_pixels",
    "evaluation.metrics": ("frechet_pixels",),
    "evaluation.features": "none",
}
TRAIN_ALONE = (
    "--config.training.evaluate_every=0",
    "--config.training.keep_best=",
    "--config.training.diversity_every=0",
)
LONG = ("--config.training.num_steps=100000", *TRAIN_ALONE)
FEW_STEPS = 4
FEW = (f"--config.training.num_steps={FEW_STEPS}", *TRAIN_ALONE)


def slurm(process, number, port):
    """What SLURM tells a task, and a port that is free in place of its job's."""
    return {
        "SLURM_JOB_ID": "17",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(number),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "JAX_COORDINATOR_PORT": str(port),
    }


def open_mpi(process, number, port):
    """What Open MPI tells a process."""
    return {
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": str(number),
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
        "JAX_COORDINATOR_PORT": str(port),
    }


def start(workdir, data_dir, *arguments, processes=2, **options):
    """Start a run that is compiled quickly."""
    flags = [*digits_flags(data_dir, TINY), *arguments]
    return Started(workdir, *flags, processes=processes, quickly=True, **options)


def final_leaves(workdir):
    """Every array of the newest checkpoint, by its name."""
    optimizer = create_optimizer(OptimizerOptions(max_grad_norm=1.0), num_steps=1)
    experiment = create_experiment(digits_config("", TINY))
    like = jax.eval_shape(
        lambda: create_state(experiment, optimizer, jax.random.key(0))
    )
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, meta = checkpoints.restore(like)
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(state).items()}
    return leaves, meta


def assert_nearly(leaf, expected, name):
    # Other devices add a batch up in another order: float32 rounding, through AdamW's
    # division by small second moments, of parameters of about 0.1 to 1.
    np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-4, err_msg=name)


def assert_same_end(workdir, other):
    (leaves, _), (others, _) = final_leaves(workdir), final_leaves(other)
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, others[name], err_msg=name)


def averages(workdir, step):
    """The averaged parameters of a checkpoint, by name."""
    backbone = create_experiment(digits_config("", TINY)).backbone
    like = jax.eval_shape(backbone.init, jax.random.key(0))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        params, _, _ = checkpoints.restore_ema(like, step)
    return {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run in two processes that nothing interrupted, and what they printed."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    with start(workdir, data_dir) as run:
        said = run.ends(EXIT_DONE, EXIT_DONE)
    return workdir, said


def test_one_process_writes_and_prints(finished):
    workdir, ((out, _), (other_out, other_err)) = finished
    assert "2 cpu device(s) in 2 processes" in out
    told = [line for line in other_out.splitlines() if "[Gloo]" not in line]
    assert (told, other_err) == ([], "")
    steps = [row["step"] for row in read_metrics(workdir) if "loss" in row]
    assert steps == list(range(1, NUM_STEPS + 1))
    assert len(list(workdir.glob("events.*"))) == 1
    assert len(read_records(workdir)) == 2
    assert (workdir / "samples" / f"step_{NUM_STEPS}.png").is_file()


def test_two_processes_end_as_one_with_two_devices(finished, tmp_path, data_dir):
    workdir = tmp_path / "one"
    # Two hosts each keep a whole state by default, two devices of one share it.
    whole = "--config.mesh.fsdp=1"
    with start(workdir, data_dir, whole, processes=1, devices=2) as run:
        run.ends(EXIT_DONE)
    # A sum of two terms does not depend on who adds them: bitwise.
    assert_same_end(workdir, finished[0])
    scores = [
        [record["scores"] for record in read_records(w)] for w in (workdir, finished[0])
    ]
    assert scores[0] == scores[1]


def losses(workdir):
    """The loss after each of the first steps."""
    return [row["loss"] for row in read_metrics(workdir) if "loss" in row][:FEW_STEPS]


def test_four_tasks_of_slurm_train_one_run_in_a_bucket(bucket, finished, data_dir):
    workdir = open_path("gs://bucket/distributed/four")
    with start(workdir, data_dir, *FEW, processes=4, cluster=slurm) as run:
        (out, _), *others = run.ends(*[EXIT_DONE] * 4)
    assert "4 cpu device(s) in 4 processes" in out
    assert not any(re.sub(r".*\[Gloo\].*\n", "", other) for other, _ in others)
    # As two processes with flags, but for the order in which float32 is added up.
    np.testing.assert_allclose(losses(workdir), losses(finished[0]), rtol=1e-5)
    assert len(losses(workdir)) == FEW_STEPS
    assert len(bucket.names("distributed/four/events.")) == 1
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.read_meta()["step"] == FEW_STEPS


def test_a_missing_process_of_open_mpi_is_named(tmp_path, data_dir):
    timeout = "--initialization_timeout=3"
    with start(tmp_path / "one", data_dir, timeout, of=3, cluster=open_mpi) as run:
        said = run.ends(EXIT_PEER_FAILURE, EXIT_PEER_FAILURE)
    for _, err in said:
        assert "Process 2 of 3 did not come to 127.0.0.1:" in err
        assert err.count("\n") == 1


def test_processes_that_would_train_different_networks_are_told_so(tmp_path, data_dir):
    workdir = tmp_path / "two"
    flags = ["--config.optimizer.learning_rate=0.001", "--config.data.num_threads=1"]
    with start(workdir, data_dir, each=[(), flags]) as run:
        said = run.ends(EXIT_BAD_INPUT, EXIT_BAD_INPUT)
    for _, err in said:
        assert "optimizer.learning_rate is 0.001 in process 1, and 0.003 in" in err
        assert "num_threads" not in err
        # jax may add, in C++, that the first to end is gone.
        assert err.count("error: All processes of a run need the same") == 1
        assert "Traceback" not in err
    assert not workdir.exists() or not list(workdir.iterdir())


def test_where_there_is_no_cluster_the_flags_are_named(tmp_path, data_dir):
    def none(*_):
        return {}

    with start(tmp_path / "no", data_dir, processes=1, cluster=none) as run:
        ((_, err),) = run.ends(EXIT_BAD_INPUT)
    assert "--distributed=auto finds no cluster here" in err
    assert "--coordinator_address=HOST:PORT" in err
    assert err.count("\n") == 1


def test_a_signal_to_one_stops_both_and_one_goes_on(finished, tmp_path, data_dir):
    workdir = tmp_path / "stopped"
    with start(workdir, data_dir, *LONG) as run:
        run.wait_for_step(5)
        run.processes[1].send_signal(signal.SIGTERM)
        (out, _), _ = run.ends(EXIT_DONE, EXIT_DONE)
    leaves, meta = final_leaves(workdir)
    assert f"Stopped by SIGTERM at step {leaves['step']}" in out
    assert meta["samples_seen"] == 8 * leaves["step"]
    if leaves["step"] >= NUM_STEPS:
        pytest.skip("the machine was too busy to stop the run in time")
    with start(workdir, data_dir, processes=1) as run:
        ((out, _),) = run.ends(EXIT_DONE)
    assert f"resumed at step {leaves['step']}" in out
    expected, _ = final_leaves(finished[0])
    for name, leaf in final_leaves(workdir)[0].items():
        assert_nearly(leaf, expected[name], name)


def test_a_state_spread_over_processes_is_trained_drawn_scored_and_kept(
    finished, tmp_path, data_dir
):
    """Each of four devices, in two processes, keeps a fourth of it."""
    workdir, steps = tmp_path / "spread", NUM_STEPS // 2
    spread = ("--config.mesh.fsdp=4", "--config.training.posthoc_ema=True")
    half = f"--config.training.num_steps={steps}"
    with start(workdir, data_dir, *spread, half, devices=2) as run:
        (out, _), (_, other_err) = run.ends(EXIT_DONE, EXIT_DONE)
    assert "4 cpu device(s) in 2 processes" in out
    assert "mesh: data 1, fsdp 4" in out
    assert other_err == ""
    assert (workdir / "samples" / f"step_{steps}.png").is_file()
    scores = [flat_scores(read_records(w)[0]) for w in (workdir, finished[0])]
    # Of a few pixels that are rounded to another byte.
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)
    with open_snapshots(workdir, read_only=True) as snapshots:
        assert snapshots.steps() == [steps]
    spread_out, whole = averages(workdir, steps), averages(finished[0], steps)
    for name, leaf in whole.items():
        assert_nearly(spread_out[name], leaf, name)


def test_a_killed_process_ends_the_other_and_nothing_is_lost(
    finished, tmp_path, data_dir
):
    """The first process is killed, then, of the run that goes on, the second."""
    workdir = tmp_path / "killed"
    for victim, step, resumed in ((0, 15, ""), (1, 25, "resumed at step 10")):
        with start(workdir, data_dir) as run:
            run.wait_for_step(step)
            run.processes[victim].kill()
            codes = [-signal.SIGKILL, EXIT_PEER_FAILURE]
            said = run.ends(*(codes if victim == 0 else codes[::-1]))
        assert "peer failure: " in said[1 - victim][1]
        assert resumed in said[0][0]
    with start(workdir, data_dir) as run:
        (out, _), _ = run.ends(EXIT_DONE, EXIT_DONE)
    assert "resumed at step 20" in out
    assert_same_end(workdir, finished[0])


def test_a_stuck_process_is_left_with_all_stacks_in_the_log(tmp_path, data_dir):
    workdir = tmp_path / "stuck"
    limit = "--config.training.watchdog_seconds=10"
    with start(workdir, data_dir, *LONG, limit) as run:
        run.wait_for_step(5)
        run.processes[1].send_signal(signal.SIGSTOP)
        _, err = run.processes[0].communicate(timeout=120)
        assert run.processes[0].returncode == EXIT_WATCHDOG, err
    assert "watchdog: no step was done in 10 s after step" in err
    assert "_train_steps" in err


def test_divergence_ends_both_alike(tmp_path, data_dir):
    broken = (
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.warmup_steps=0",
    )
    with start(tmp_path / "nan", data_dir, *LONG, *broken) as run:
        said = run.ends(EXIT_NON_FINITE, EXIT_NON_FINITE)
    assert all("10 steps in a row were not finite" in err for _, err in said)


def test_a_batch_that_does_not_spread_over_both_is_refused(tmp_path, data_dir):
    with start(tmp_path / "bad", data_dir, "--config.training.batch_size=7") as run:
        said = run.ends(EXIT_BAD_INPUT, EXIT_BAD_INPUT)
    for _, err in said:
        assert "training.batch_size must be a multiple of the 2 devices, got 7" in err


def test_a_missing_process_is_named(tmp_path, data_dir):
    timeout = "--initialization_timeout=3"
    with start(tmp_path / "alone", data_dir, timeout, of=3) as run:
        said = run.ends(EXIT_PEER_FAILURE, EXIT_PEER_FAILURE)
    for _, err in said:
        assert "Process 2 of 3 did not come to 127.0.0.1:" in err
        assert err.count("\n") == 1
