"""States to save, and what their checkpoints must be."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.state import TrainState

META = {"samples_seen": 640, "config": {"width": 8, "patch_sizes": [2, 4]}}


def make_state(step, width=24, dtype=jnp.float32):
    """A state whose every array depends on the step.

    Large enough that not every array is stored inside Orbax's metadata (1024 bytes).
    """
    keys = jax.random.split(jax.random.key(step), 3)
    params = {
        "embed": {"kernel": jax.random.normal(keys[0], (3, width), dtype)},
        "block_0": {"kernel": jax.random.normal(keys[1], (width, width), dtype)},
    }
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt_state = (opt.init(params), {"key": keys[2]})
    ema = jax.tree.map(lambda p: 0.5 * p, params)
    return TrainState(jnp.int32(step), params, ema, opt_state, jnp.int32(0))


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def bits(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x).tobytes()


def assert_bitwise_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert bits(x) == bits(y)


def save_steps(directory, *steps, keep=3):
    with Checkpoints(directory, keep=keep) as c:
        for step in steps:
            c.save(make_state(step), META)


def files_of(step_folder):
    """All but the commit file, which is all about being there."""
    found = (p for p in sorted(step_folder.rglob("*")) if p.is_file())
    return [p for p in found if p.name != "commit_success.txt"]


def tree_of(directory):
    return {
        str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None
        for p in directory.rglob("*")
    }


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        capture_output=True,
        text=True,
        check=True,
    )
