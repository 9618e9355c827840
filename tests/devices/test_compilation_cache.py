"""Programs kept from one start to the next, and what can go wrong with that."""

import os
import subprocess
import sys

import pytest

from dig_jax.devices.compilation_cache import forget_oldest, user_folder

PROGRAM = """
import sys
import jax
from dig_jax.devices.compilation_cache import (
    from_cache_since, lookups, use_compilation_cache
)
use_compilation_cache(sys.argv[1] if len(sys.argv) > 1 else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
before = lookups()
total = jax.jit(lambda x: (x * 3).sum())(jax.numpy.arange(5.0))
where = jax.config.jax_compilation_cache_dir
print(float(total).hex(), from_cache_since(before), where)
"""


def unset():
    """This process's environment without what the tests' own cache puts into it."""
    mine = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "PYTHONWARNINGS")
    return {k: v for k, v in os.environ.items() if not k.startswith(mine)}


def run(*arguments, **environment):
    """(standard output's words, lines of standard error)."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env={**unset(), **{k: str(v) for k, v in environment.items()}},
    )
    return found.stdout.split(), found.stderr.splitlines()


def entries(folder):
    return sorted(folder.rglob("*-cache"))


def test_a_second_start_finds_its_programs_and_heals_a_damaged_one(tmp_path):
    first, _ = run(tmp_path)
    assert first[1] == "False"
    assert entries(tmp_path)
    second, said = run(tmp_path)
    assert (second[0], second[1], said) == (first[0], "True", [])
    for path in entries(tmp_path):
        path.write_bytes(path.read_bytes()[:20])
    damaged, said = run(tmp_path)
    assert damaged[0] == first[0]
    assert len(said) == 1
    assert said[0].startswith("compilation cache: jit_")
    run(tmp_path)  # those that were deleted are written again
    healed, said = run(tmp_path)
    assert (healed[1], said) == ("True", [])


def test_a_folder_that_cannot_be_made_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found, said = run(tmp_path / "file")
    assert found[2] == "None"
    assert len(said) == 1
    assert said[0].endswith("compiled programs are not kept")


def test_a_cpu_keeps_nothing_unless_a_folder_is_named(tmp_path):
    found, said = run(XDG_CACHE_HOME=tmp_path)
    assert (found[2], said, entries(tmp_path)) == ("None", [], [])


def test_the_users_own_cache_of_jax_is_left_alone(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    found, _ = run(other, JAX_COMPILATION_CACHE_DIR=mine)
    assert found[2] == str(mine)
    assert entries(mine)
    assert not other.exists()
    before = entries(mine)
    run("off", JAX_COMPILATION_CACHE_DIR=mine)
    assert entries(mine) == before


def test_the_programs_not_used_for_longest_go_first(tmp_path):
    for age, name in enumerate(("new", "old", "oldest")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    forget_oldest(tmp_path, 250)
    assert [path.name for path in entries(tmp_path)] == ["new-cache", "old-cache"]
    forget_oldest(tmp_path, 250)
    assert len(entries(tmp_path)) == 2


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has a folder of its own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "dig_jax"
