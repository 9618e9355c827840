"""Whole runs on a GPU: resumed bit for bit, and digits that can be read."""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from processes import DIGITS, Started, digits_flags, last_step

from dig_jax.config import load_config_file
from dig_jax.errors import EXIT_DONE
from dig_jax.evaluation import read_records
from dig_jax.experiment import create_experiment
from dig_jax.options import OptimizerOptions
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state

pytestmark = pytest.mark.gpu

NUM_STEPS = 300
DETERMINISTIC = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
QUIETLY = {
    "training.diversity_every": 0,
    "training.evaluate_every": 0,
    "training.keep_best": "",
    "training.sample_every": 0,
    "training.samples_per_class": 1,
}
SHORT = QUIETLY | {
    "training.batch_size": 8,
    "training.num_steps": NUM_STEPS,
    "training.log_every": 1,
    "training.checkpoint_every": 100,
    "sample.num_steps": 1,
}
NETWORKS = {
    "dig_parallel": "name='dig_parallel', hops=1, patch_sizes=(2, 4)",
    "uvit": "name='uvit', patch_size=2, num_heads=2",
}

# Of ten classes, a classifier that knows nothing reads the label in 10% of the images,
# and so it is where labels, times or aggregation do not reach the network. 600 steps on
# a CPU gave 96%; 80% is ten deviations of 200 images below that.
LEAST_ACCURACY = 0.8
DIGITS_STEPS, DIGITS_IMAGES = 600, 200
SECONDS = float(os.environ.get("DIG_JAX_TEST_SECONDS", "600"))


def write_config(path, network):
    """A configuration of digits with another, tiny network."""
    path.write_text(
        "from dig_jax.config import load_config_file\n\n\n"
        "def get_config():\n"
        f"    config = load_config_file({str(DIGITS)!r})\n"
        f"    config.backbone = dict({NETWORKS[network]}, width=16, depth=2,\n"
        "        num_classes=10, dtype='mixed')\n"
        "    return config\n"
    )
    return path


def final_state(workdir, file):
    experiment = create_experiment(load_config_file(str(file)))
    optimizer = create_optimizer(OptimizerOptions(max_grad_norm=1.0), num_steps=1)
    like = jax.eval_shape(
        lambda: create_state(experiment, optimizer, jax.random.key(0))
    )
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(like)[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_resumed_run_ends_with_the_same_bits(device, tmp_path, data_dir, network):
    file = write_config(tmp_path / "config.py", network)
    _, *flags = digits_flags(data_dir, SHORT)
    flags = [f"--config={file}", *flags]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with (
        Started(whole, *flags, environment=DETERMINISTIC) as one,
        Started(stopped, *flags, environment=DETERMINISTIC) as other,
    ):
        other.wait_for_step(10)
        other.processes[0].send_signal(signal.SIGTERM)
        other.ends(EXIT_DONE)
        at = last_step(stopped)
        with Started(stopped, *flags, environment=DETERMINISTIC) as again:
            ((said, _),) = again.ends(EXIT_DONE)
        one.ends(EXIT_DONE)
    assert 10 <= at < NUM_STEPS, "it was not stopped in its midst"
    assert f"resumed at step {at}" in said
    same = jax.tree.map(
        np.array_equal, final_state(whole, file), final_state(stopped, file)
    )
    assert all(jax.tree.leaves(same))


def run_main(workdir, *flags):
    """A mode of the command line; says where it was when its time is up."""
    command = [sys.executable, "-X", "faulthandler", "-m", "dig_jax.main"]
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # prints where each thread is
        said, _ = process.communicate()
        pytest.fail(
            f"not done after {SECONDS:.0f} s, at step {last_step(workdir)}:\n"
            + said[-6000:]
        )
    assert process.returncode == EXIT_DONE, said[-6000:]


def test_digits_can_be_read(device, tmp_path, data_dir):
    """The whole way: data, training, drawing with the average, a score."""
    workdir = tmp_path / "digits"
    steps = {"training.num_steps": DIGITS_STEPS, "training.log_every": 50}
    run_main(workdir, *digits_flags(data_dir, QUIETLY, steps))
    run_main(
        workdir,
        "--mode=evaluate",
        "--config.evaluation.features=none",
        "--config.evaluation.metrics=('label_accuracy',)",
        f"--config.sample.num_images={DIGITS_IMAGES}",
    )
    (record,) = read_records(workdir)
    assert record["samples"]["device"] == device.platform
    assert record["scores"]["label_accuracy"]["value"] > LEAST_ACCURACY
