"""The same steps twice, in two processes: the same bits, under XLA's flag for it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.devices.sharding import MeshOptions, create_mesh
from dig_jax.experiment import create_experiment
from dig_jax.training.programs import create_programs

pytestmark = pytest.mark.gpu

FLAG = "--xla_gpu_deterministic_ops=true"
CONFIG = Path(__file__).parents[2] / "configs" / "cifar10.py"
SIZES = dict(width=64, depth=2, dtype="mixed")
# Segment sums are scatters, which add in any order; so does cuDNN's gradient.
NETWORKS = {
    "dig_parallel": ("dig_parallel_2_4", {}),
    "dig_parallel, segment": ("dig_parallel_2_4", dict(aggregation="segment")),
    "dig_mix": ("dig_mix_2_4", {}),
    "uvit": ("uvit_2", dict(num_heads=4)),
    "dit": ("dit_2", dict(num_heads=4)),
}
STEPS, BATCH = 3, 32


def digest_of_steps(name):
    """Of the state after some steps on random images, every bit of it."""
    variant, options = NETWORKS[name]
    config = load_config_file(f"{CONFIG}:{variant}")
    config.backbone.update(SIZES | options)
    config.optimizer.warmup_steps = 0
    mesh = create_mesh(MeshOptions(data=1), jax.devices()[:1])
    programs = create_programs(create_experiment(config), mesh, batch_size=BATCH)
    step = programs.lower_step().compile()
    image, label = programs.abstract_batch
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, image.shape, np.uint8)
    state = programs.create_state()
    first = jax.tree.map(np.asarray, state.params)
    for _ in range(STEPS):
        state, _ = step(state, images, np.zeros(label.shape, np.int32))
    state = jax.tree.map(np.asarray, state)
    moved = jax.tree.map(lambda a, b: np.any(a != b), first, state.params)
    assert any(jax.tree.leaves(moved))
    leaves = jax.tree.leaves(state)
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()


def digests():
    """By network."""
    return {name: digest_of_steps(name) for name in NETWORKS}


@pytest.fixture(scope="module")
def two_runs(device):
    """What two processes found, which ran at the same time."""
    script = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_determinism\n"
        "print(json.dumps(test_determinism.digests()))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | {"XLA_FLAGS": FLAG},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_repeat_bit_for_bit(two_runs, name):
    one, other = two_runs
    assert one[name] == other[name]
