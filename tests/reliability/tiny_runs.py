"""Runs of a tiny network on digits: this file is their --config."""

import hashlib
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from dig_jax.config import load_config_file
from dig_jax.experiment import create_experiment
from dig_jax.training.checkpoints import Checkpoints
from dig_jax.training.fingerprint import named_leaves
from dig_jax.training.metric_writer import read_metrics
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state

ROOT = Path(__file__).parents[2]
TINY = {
    "backbone.width": 8,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "backbone.patch_sizes": (4, 8),
    "training.batch_size": 8,
    "training.num_steps": 60,
    "training.log_every": 1,
    "training.checkpoint_every": 5,
    "training.diversity_every": 0,
    "training.evaluate_every": 0,
    "training.keep_best": "",
    "training.sample_every": 0,
    "training.samples_per_class": 1,
    "sample.num_steps": 1,
}


def get_config():
    config = load_config_file(str(ROOT / "configs" / "digits.py"))
    config.update_from_flattened_dict(TINY)
    return config


def tiny_config(data_dir, **changes):
    config = get_config()
    config.data.data_dir = str(data_dir)
    config.update_from_flattened_dict(changes)
    return config


def abstract_state():
    """What a checkpoint of these runs holds."""
    experiment = create_experiment(get_config())
    optimizer = create_optimizer(num_steps=1, max_grad_norm=1.0)
    return jax.eval_shape(
        lambda: create_state(experiment, optimizer, jax.random.key(0))
    )


class Started:
    """A run of one process or several, killed if a test leaves it."""

    def __init__(self, workdir, data_dir, *arguments, processes=1):
        address = f"127.0.0.1:{_free_port()}"
        self.workdir = workdir
        self.born, self.began = time.monotonic(), time.time()
        self.processes = []
        for i in range(processes):
            command = [sys.executable, "-m", "dig_jax.main", f"--workdir={workdir}"]
            command += [f"--config={__file__}", f"--config.data.data_dir={data_dir}"]
            if processes > 1:
                command += [f"--coordinator_address={address}", f"--process_id={i}"]
                command += [f"--num_processes={processes}"]
            self.processes.append(
                subprocess.Popen(
                    [*command, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=environment(data_dir),
                )
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    @property
    def alive(self):
        return all(process.poll() is None for process in self.processes)

    def wait_until(self, condition, seconds=1800.0, every=0.001):
        """Wait for something; False where the run ended before it came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            if not self.alive:
                return False
            time.sleep(every)
        raise AssertionError(f"waited {seconds} s in vain")

    def wait_for_step(self, step):
        found = self.wait_until(lambda: last_step(self.workdir) >= step, every=0.01)
        assert found, self.ends()

    def kill(self, which=0):
        self.processes[which].kill()
        self.processes[which].wait()

    def ends(self, *codes):
        """Wait for the ends; returns (stdout, stderr) of each."""
        said = [process.communicate(timeout=1800) for process in self.processes]
        found = tuple(process.returncode for process in self.processes)
        assert codes in ((), found), (found, said)
        return said


def environment(data_dir):
    """One cache of compiled programs for all starts."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": f"{data_dir}/compiled",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def last_step(workdir):
    """The newest step that a run has logged."""
    return max((row["step"] for row in read_metrics(workdir)), default=0)


def unfinished_saves(workdir):
    """Folders of checkpoints without a commit file: saves under way, or killed."""
    checkpoints = workdir / "checkpoints"
    folders = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return [f for f in folders if f.is_dir() and not (f / COMMIT_FILE).exists()]


COMMIT_FILE = "commit_success.txt"


def end_of(workdir):
    """Digests of the last checkpoint's arrays, what comes next, and all losses."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, meta = checkpoints.restore(abstract_state())
    digests = {
        name: hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for name, leaf in named_leaves(state).items()
    }
    losses = {row["step"]: row["loss"] for row in read_metrics(workdir)}
    return digests, meta["samples_seen"], meta["data"], losses


def random_moments(seed):
    return random.Random(seed)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
