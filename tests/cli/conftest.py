"""The command line, called here or refused, and a run to ask about."""

import re
import shutil

import pytest

from dig_jax import main as command_line
from dig_jax.errors import EXIT_BAD_INPUT


@pytest.fixture
def run(capsys):
    """Run the command line; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = command_line.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def is_announced(line):
    """Whether a line says what is waited for, or how long that took."""
    return re.fullmatch(r"(starting|loading .*)( \.\.\.| took .* s)", line) is not None


@pytest.fixture
def refuse(run):
    """Run what must be refused; returns the message."""

    def refuse(*arguments):
        code, out, err = run(*arguments)
        assert code == EXIT_BAD_INPUT
        assert out == ""
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if not is_announced(line)]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return err

    return refuse


@pytest.fixture(scope="module")
def data_dir(trained_runs):
    return trained_runs.data_dir


@pytest.fixture(scope="module")
def workdir(trained_runs, without_optimizations):
    """A trained run, not to be changed."""
    return trained_runs.workdir()


@pytest.fixture
def own_workdir(workdir, tmp_path):
    """A copy of the run that may be changed."""
    shutil.copytree(workdir, tmp_path / "run")
    return tmp_path / "run"
