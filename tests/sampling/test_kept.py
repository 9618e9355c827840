"""A run's samplers are compiled once, and kept."""

import numpy as np
import pytest

from dig_jax.run import load
from dig_jax.sampling import kept, sampler


@pytest.fixture(scope="module")
def run(trained_runs, without_optimizations):
    return load(trained_runs.workdir())


@pytest.fixture
def compiled(monkeypatch):
    """The programs that are compiled from now on."""
    programs, compile_lowered = [], sampler.compile_lowered

    def compile_and_note(lowered):
        programs.append(lowered)
        return compile_lowered(lowered)

    monkeypatch.setattr(sampler, "compile_lowered", compile_and_note)
    return programs


def test_what_shares_a_program_is_compiled_once(run, compiled, capsys):
    first = run.sample(3, labels=3, seed=1, num_steps=3)
    again = run.sample(4, labels=[3, 3, 1], seed=1, num_steps=3)
    other = run.sample(3, labels=3, seed=2, num_steps=3)
    run.sample(5, labels="training", num_steps=3)
    assert len(compiled) == 1
    assert np.array_equal(first[:2], again[:2])
    assert not np.array_equal(first, other)
    assert capsys.readouterr() == ("", "")  # no terminal looks at it
    run.sample(3, labels=3, seed=1, num_steps=1)
    assert len(compiled) == 2
    assert np.array_equal(run.sample(3, labels=3, seed=1, num_steps=3), first)
    assert len(compiled) == 2


def test_only_the_newest_are_kept(run, compiled, monkeypatch):
    monkeypatch.setattr(kept, "MOST_KEPT", 1)
    for _ in range(2):
        run.sample(1, num_steps=4)
        run.sample(1, num_steps=5)
    assert len(compiled) == 4


def test_a_run_is_shown_in_a_line(run):
    assert repr(run) == (
        f"<Run of dig_parallel, 0.01M parameters, step 4, workdir {run.workdir}>"
    )
