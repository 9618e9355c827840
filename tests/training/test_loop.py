"""Whole runs of the training loop: what it writes, how it stops and goes on."""

import json
import signal

import jax
import numpy as np
import processes
import pytest
from processes import Started, digits_config, digits_flags

from dig_jax.data import create_dataset
from dig_jax.data.damage import DamagedRecordError
from dig_jax.data.loader import record_ids
from dig_jax.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    InputError,
    NonFiniteError,
)
from dig_jax.experiment import create_experiment
from dig_jax.options import OptimizerOptions
from dig_jax.reporting.metric_writer import read_metrics
from dig_jax.run import load
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.posthoc_ema import open_snapshots, solve_posthoc_ema
from dig_jax.storage.power_ema import SIGMA_RELS
from dig_jax.training.loop import nothing_to_do, train
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.setup import TrainingSetup
from dig_jax.training.step import create_state

TINY = {
    **processes.TINY,
    "training.num_steps": 240,
    "training.log_every": 10,
    "training.checkpoint_every": 20,
    "training.diversity_every": 100,
    "training.sample_every": 120,
    "training.samples_per_class": 2,
    "training.posthoc_ema": True,
    "training.posthoc_every": 50,
    "sample.num_steps": 4,
}


def tiny_config(data_dir, **changes):
    return digits_config(data_dir, TINY, changes)


def train_tiny(workdir, data_dir, **changes):
    return train(create_experiment(tiny_config(data_dir, **changes)), workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run that nothing interrupted, in a process of its own like the others."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    with start(workdir, data_dir) as run:
        run.ends(EXIT_DONE)
    return workdir


def final_state(workdir, config):
    experiment = create_experiment(config)
    optimizer = create_optimizer(OptimizerOptions(max_grad_norm=1.0), num_steps=1)
    like = jax.eval_shape(
        lambda: create_state(experiment, optimizer, jax.random.key(0), posthoc_ema=True)
    )
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, meta = checkpoints.restore(like)
    return state, meta


def start(workdir, data_dir):
    return Started(workdir, *digits_flags(data_dir, TINY), quickly=True)


def test_run_writes_what_it_promises(finished):
    pictures = ("loss.png", "diversity.png", "graph.png")
    for name in ("config.json", "metrics.jsonl", *pictures):
        assert (finished / name).stat().st_size > 0
    assert (finished / "samples" / "step_120.png").exists()
    assert (finished / "samples" / "step_240.png").exists()
    assert list(finished.glob("events.*"))
    rows = [row for row in read_metrics(finished) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(10, 241, 10))
    assert rows[-1]["loss"] < rows[0]["loss"]
    # Ten steps of stratified times: some images at every noise level, and since all
    # levels are as likely, their mean is nearly that of the losses.
    for row in rows:
        by_level = [row[f"loss_by_noise_level/bin_{i:02d}"] for i in range(10)]
        assert np.mean(by_level) == pytest.approx(row["loss"], rel=0.3)
    # Up to its peak within the warm-up, then half a cosine down to 0.
    peak, warmup, last = 3e-3, 200, 240
    expected = [
        peak * n / warmup
        if n < warmup
        else peak * (1 + np.cos(np.pi * (n - warmup) / (last - warmup))) / 2
        for n in range(9, last, 10)
    ]
    found = [row["learning_rate"] for row in rows]
    # float32 rounds the cosine to 1e-7 of the peak.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    diversity = [r for r in read_metrics(finished) if "feature_diversity/block_00" in r]
    assert [row["step"] for row in diversity] == [1, 100, 200]
    assert len([key for key in diversity[0] if key.startswith("feature")]) == 3


def test_interrupted_and_killed_run_ends_bitwise_equal(finished, tmp_path, data_dir):
    workdir = tmp_path / "interrupted"
    said = []
    for step, number, code in (
        (30, signal.SIGINT, EXIT_INTERRUPTED),
        (70, signal.SIGTERM, EXIT_DONE),
        (130, signal.SIGKILL, -signal.SIGKILL),
    ):
        with start(workdir, data_dir) as run:
            run.wait_for_step(step)
            run.processes[0].send_signal(number)
            ((out, err),) = run.ends(code)
        assert "Traceback" not in err
        said.append(out)
    assert "Stopped by SIGINT at step" in said[0]
    assert "Stopped by SIGTERM at step" in said[1]
    with start(workdir, data_dir) as run:
        ((out, _),) = run.ends(EXIT_DONE)
    assert "resumed at step" in out

    config = tiny_config(data_dir)
    state, meta = final_state(workdir, config)
    expected, expected_meta = final_state(finished, config)
    assert meta["samples_seen"] == expected_meta["samples_seen"] == 240 * 8
    same = jax.tree.map(np.array_equal, state, expected)
    assert all(jax.tree.leaves(same))
    steps = [row["step"] for row in read_metrics(workdir) if "loss" in row]
    assert steps == list(range(10, 241, 10))
    assert snapshots_of(workdir) == snapshots_of(finished)


def snapshots_of(workdir):
    """The snapshots for post-hoc EMA, by step: fingerprints of what they hold."""
    with open_snapshots(workdir, read_only=True) as snapshots:
        return {s: snapshots.read_record(s)["leaves"] for s in snapshots.steps()}


def test_post_hoc_ema_of_a_run_is_made_from_its_snapshots(finished, data_dir):
    assert list(snapshots_of(finished)) == [50, 100, 150, 200, 240]
    state, _ = final_state(finished, tiny_config(data_dir))
    like = jax.eval_shape(lambda: state.params)
    for sigma_rel, stored in zip(SIGMA_RELS, state.power_ema, strict=True):
        made = solve_posthoc_ema(finished, like, sigma_rel)
        # A few roundings of float32 in numbers of at most one.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            made.params,
            stored,
        )


def test_run_without_post_hoc_ema_is_refused_a_workdir_with_it(finished, data_dir):
    with pytest.raises(InputError, match=r"training\.posthoc_ema: True -> False"):
        train_tiny(finished, data_dir, **{"training.posthoc_ema": False})


def test_run_stopped_before_its_first_logged_loss_is_saved(
    tmp_path, data_dir, monkeypatch, capsys
):
    def signalled(stop):
        stop.received = signal.SIGTERM
        return stop

    monkeypatch.setattr("dig_jax.training.stop.StopSignal.__enter__", signalled)
    assert train_tiny(tmp_path, data_dir) == 0
    assert "Stopped by SIGTERM at step 1" in capsys.readouterr().out
    assert load(tmp_path).step == 1


def test_finished_run_has_nothing_to_do(finished, data_dir, capsys):
    assert train_tiny(finished, data_dir) == 0
    assert "Nothing to do: step 240 of 240 is done." in capsys.readouterr().out
    assert "run has already done 5" in nothing_to_do(5, num_steps=4)


def test_run_goes_on_to_more_steps(finished, tmp_path, data_dir, capsys):
    workdir = tmp_path / "longer"
    train_tiny(workdir, data_dir, **{"training.num_steps": 5})
    train_tiny(workdir, data_dir, **{"training.num_steps": 10})
    assert "changed: training.num_steps: 5 -> 10" in capsys.readouterr().out
    assert load(workdir).step == 10


def test_workdir_of_another_run_is_refused(finished, data_dir):
    with pytest.raises(InputError, match=r"backbone\.width: 16 -> 24"):
        train_tiny(finished, data_dir, **{"backbone.width": 24})


def test_loaded_run_draws_the_label_asked_for_repeatably(finished):
    run = load(finished)
    images = run.sample(3, labels=3, seed=1)
    assert images.shape == (3, 8, 8, 1)
    assert images.dtype == np.uint8
    assert np.array_equal(images, run.sample(3, labels=[3, 3], seed=1))
    assert not np.array_equal(images, run.sample(3, labels=3, seed=2))


def test_divergence_stops_the_run_and_saves_nothing_broken(tmp_path, data_dir):
    config = tiny_config(data_dir, **{"optimizer.learning_rate": 1e38})
    config.training.checkpoint_every = 1
    with pytest.raises(NonFiniteError, match="10 steps in a row"):
        train(create_experiment(config), tmp_path)
    state, _ = final_state(tmp_path, config)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.fixture(scope="module")
def damaged_dir(tmp_path_factory):
    """Digits, some of whose training records are damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    create_dataset("digits", data_dir=str(folder))
    file = next(folder.rglob("digits-train.array_record-*"))
    content = bytearray(file.read_bytes())
    for place in range(1000, content.rindex(b"image"), 1650):  # every tenth
        content[place] ^= 1
    file.write_bytes(content)
    return folder


def expected_damage(data_dir, num_steps):
    """Damaged records met up to each step, counted along the order of the records."""
    source = create_dataset("digits", data_dir=str(data_dir))
    damaged = np.zeros(len(source), int)
    for index in range(len(source)):
        try:
            source[index]
        except DamagedRecordError:
            damaged[index] = 1
    assert 100 < damaged.sum() < 200
    # No two of them are neighbours: each is replaced by the one that follows.
    assert not (damaged * np.roll(damaged, 1)).any()
    rows = record_ids(0, num_steps * 8, num_records=len(source), seed=0)
    return damaged[rows].reshape(num_steps, 8).sum(axis=1).cumsum()


def damage_by_line(workdir):
    rows = [row for row in read_metrics(workdir) if "loss" in row]
    return {row["step"]: row.get("damaged_records") for row in rows}


# With a rate that does not know how many steps there are, all compile one program.
DAMAGED = {
    "data.max_damaged_share": 0.2,
    "optimizer.schedule": "constant",
    "training.diversity_every": 0,
    "training.posthoc_ema": False,
}


def test_damaged_records_are_counted_through_interruptions(damaged_dir, tmp_path):
    changes = {**DAMAGED}
    expected = expected_damage(damaged_dir, 40)
    for num_steps in (15, 40):
        changes["training.num_steps"] = num_steps
        assert train_tiny(tmp_path, damaged_dir, **changes) == 0
    found = damage_by_line(tmp_path)
    assert found == {s: expected[s - 1] for s in (10, 15, 20, 30, 40)}
    assert 0 < expected[9] < expected[14] < expected[19]


def test_damage_that_was_not_counted_from_the_start_is_not_told(
    damaged_dir, tmp_path, monkeypatch
):
    meta = TrainingSetup.meta

    def meta_of_before(self, *rest):
        return {k: v for k, v in meta(self, *rest).items() if k != "damaged_records"}

    changes = {**DAMAGED, "training.num_steps": 10}
    with monkeypatch.context() as patched:
        patched.setattr(TrainingSetup, "meta", meta_of_before)
        train_tiny(tmp_path, damaged_dir, **changes)
    changes["training.num_steps"] = 30
    train_tiny(tmp_path, damaged_dir, **changes)
    expected = expected_damage(damaged_dir, 10)[-1]
    assert damage_by_line(tmp_path) == {10: expected, 20: None, 30: None}


def test_metrics_are_strict_json(finished):
    for line in (finished / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
