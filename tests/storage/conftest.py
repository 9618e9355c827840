"""Checkpoints to be copied and damaged."""

import shutil

import pytest
from absl import logging as absl_logging
from checkpoint_states import save_steps


@pytest.fixture
def warnings_logged(caplog):
    """Absl's logger does not reach pytest's handler by itself."""
    logger = absl_logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with the steps 10 and 20, to be copied."""
    directory = tmp_path_factory.mktemp("two_steps") / "checkpoints"
    save_steps(directory, 10, 20)
    return directory


@pytest.fixture
def copy(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")
