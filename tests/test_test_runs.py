"""What every test run is given: kept programs, an order of files, shared runs."""

import os
import subprocess
import sys
import zlib
from collections import namedtuple
from typing import Any

import program_cache
import pytest
import slowest_files

from dig_jax.storage.checked_steps import COMMIT_FILE

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax._src import monitoring

counts = []
monitoring.register_event_listener(lambda event, **_: counts.append(event))

@jax.jit
def descend(w, x):
    def loss(w):
        h, _ = jax.lax.scan(lambda h, k: (jnp.tanh(h @ k), h.mean()), x, w)
        return jnp.sum(jax.nn.softmax(h) ** 2)
    return jax.lax.fori_loop(0, 3, lambda _, w: w - jax.grad(loss)(w), w)

keys = jax.random.split(jax.random.key(0))
w = jax.random.normal(keys[0], (4, 32, 32))
w = descend(w, jax.random.normal(keys[1], (8, 32)))
print(np.asarray(w).tobytes().hex())
print(counts.count("/jax/compilation_cache/cache_hits"))
"""


def test_a_program_that_was_kept_computes_the_same_bits_in_silence(tmp_path):
    """Compiled without the cache, compiled into it, and read from it."""

    def run(**settings):
        settings["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        bits, hits = done.stdout.split()
        return bits, int(hits)

    without, none = run(JAX_ENABLE_COMPILATION_CACHE="false")
    first, missed = run()
    second, found = run()
    assert without == first == second
    assert none == 0
    assert found > missed


def test_programs_that_are_half_written_or_old_are_deleted(tmp_path):
    machine = tmp_path / "machine"
    machine.mkdir()
    content = zlib.compress(os.urandom(1000), level=0)
    for age in range(5):
        path = machine / f"program_{age}-cache"
        path.write_bytes(content)
        os.utime(path, (10**9 - age, 10**9 - age))
    (machine / "killed-cache").write_bytes(content[:500])
    program_cache.tidy(tmp_path, max_bytes=3 * len(content))
    kept = [f"program_{age}-cache" for age in range(3)]
    assert sorted(path.name for path in machine.iterdir()) == kept


def test_a_half_written_program_is_read_without_a_word_by_other_processes(tmp_path):
    script = "import jax; print(jax.jit(lambda x: x + 1)(1.0))"
    settings = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    command, environment = [sys.executable, "-c", script], os.environ | settings
    for _ in range(2):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == ("2.0\n", "")
        assert list(tmp_path.glob("*-cache"))
        for path in tmp_path.glob("*-cache"):
            path.write_bytes(path.read_bytes()[:20])


def test_slow_files_come_first_and_tests_stay_in_their_order(monkeypatch):
    item: Any = namedtuple("item", "nodeid")
    monkeypatch.setattr(slowest_files, "SLOWEST_FIRST", ("c.py", "b.py"))
    items = [item(f"{file}.py::{test}") for file in "abc" for test in (2, 1)]
    ordered = [item.nodeid for item in slowest_files.slowest_first(items)]
    assert ordered == [f"{file}.py::{test}" for file in "cba" for test in (2, 1)]
    with pytest.raises(pytest.UsageError, match=r"c\.py is not there"):
        slowest_files.check_names()


def test_a_shared_run_is_trained_once_and_is_whole(
    trained_runs, without_optimizations, monkeypatch
):
    workdir = trained_runs.workdir()
    assert (workdir / "checkpoints" / "4" / COMMIT_FILE).exists()
    monkeypatch.setattr("trained_runs.main", lambda *_: pytest.fail("trained again"))
    assert trained_runs.workdir() == workdir
