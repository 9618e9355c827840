"""A run and its export, whole and to be damaged."""

import pytest
from program_cache import compiled_quickly
from small_exports import create_run

from dig_jax.export import export_run
from dig_jax.options import SampleOptions


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return create_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """An export that no test changes."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export_run(run, SampleOptions(solver="heun", num_steps=3), folder)
    return folder


@pytest.fixture
def compile_quickly():
    """For what equals whatever XLA does with it."""
    with compiled_quickly():
        yield


@pytest.fixture
def damaged(exported, tmp_path):
    """A copy of the export, to be damaged."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path
