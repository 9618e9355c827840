"""Runs of a tiny network on digits, and what they end with."""

import hashlib
import random

import jax
import numpy as np
import processes
from processes import digits_config, digits_flags

from dig_jax.experiment import create_experiment
from dig_jax.options import OptimizerOptions
from dig_jax.reporting.metric_writer import read_metrics
from dig_jax.storage.checked_steps import COMMIT_FILE
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.fingerprint import named_leaves
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state

TINY = {
    **processes.TINY,
    "training.num_steps": 60,
    "training.log_every": 1,
    "training.checkpoint_every": 5,
    "sample.num_steps": 1,
}
# Flags of a run that goes on for minutes.
MANY = (
    "--config.training.num_steps=10000",
    "--config.training.checkpoint_every=50",
    "--config.training.log_every=100",
)


def tiny_config(data_dir, **changes):
    return digits_config(data_dir, TINY, changes)


def tiny_flags(data_dir, **changes):
    return digits_flags(data_dir, TINY, changes)


class Started(processes.Started):
    """A run of the tiny network."""

    def __init__(self, workdir, data_dir, *arguments, **options):
        super().__init__(workdir, *tiny_flags(data_dir), *arguments, **options)


def abstract_state():
    """What a checkpoint of these runs holds."""
    experiment = create_experiment(tiny_config("nowhere"))
    optimizer = create_optimizer(OptimizerOptions(max_grad_norm=1.0), num_steps=1)
    return jax.eval_shape(
        lambda: create_state(experiment, optimizer, jax.random.key(0))
    )


def unfinished_saves(workdir):
    """Folders of checkpoints without a commit file: saves under way, or killed."""
    checkpoints = workdir / "checkpoints"
    folders = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return [f for f in folders if f.is_dir() and not (f / COMMIT_FILE).exists()]


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
