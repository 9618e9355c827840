"""A disk without room ends every mode that writes with one line that names a file.

Files may not grow beyond a limit here (RLIMIT_FSIZE), which fails in the same calls as
a full disk, with "File too large". Training is in
tests/cli/test_train_mode.py and, on disks that are full, in the long tests.
"""

import contextlib
import re
import resource

import jax
import numpy as np
import pytest
from PIL import Image
from processes import digits_flags

from dig_jax import main as command_line
from dig_jax.errors import EXIT_BAD_INPUT
from dig_jax.prepare import command as prepare_command

NO_LABELS_READ = ("--config.evaluation.features=none", "--config.evaluation.metrics=()")


@contextlib.contextmanager
def files_up_to(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def refused(capsys):
    """Runs a command line where there is no room; returns its line.

    What it compiles is not kept: it would be half a file, found by later tests.
    """
    least = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[least]
    jax.config.update(least, 1e9)

    def run(main, *arguments, room=0):
        capsys.readouterr()
        with files_up_to(room):
            assert main([str(argument) for argument in arguments]) == EXIT_BAD_INPUT
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.match(r"(?i)error: .*File too large", said)
        return said

    yield run
    jax.config.update(least, before)


@pytest.mark.parametrize("mode", ["sample", "evaluate", "export"])
def test_a_trained_run_that_finds_no_room(mode, trained_runs, tmp_path, refused):
    out = tmp_path / "out"
    said = refused(
        command_line.main,
        f"--workdir={trained_runs.workdir()}",
        f"--mode={mode}",
        f"--out={out}",
        *(NO_LABELS_READ if mode == "evaluate" else ()),
    )
    assert str(out) in said
    assert not any(out.glob("samples.npz"))


def test_statistics_that_find_no_room(trained_runs, tmp_path, refused):
    said = refused(
        command_line.main,
        *digits_flags(trained_runs.data_dir),
        "--mode=stats",
        f"--config.evaluation.cache_dir={tmp_path}",
        f"--out={tmp_path / 'stats.npz'}",
    )
    assert str(tmp_path) in said
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_finds_no_room(trained_runs, tmp_path, refused):
    said = refused(
        command_line.main,
        "--mode=compare",
        "--config=configs/compare_digits.py",
        f"--config.base.data.data_dir={trained_runs.data_dir}",
        "--variants=parallel",
        f"--workdir={tmp_path}",
    )
    assert str(tmp_path / "config.json") in said
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_find_no_room_when_they_are_prepared(tmp_path, refused):
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        pixels = np.full((8, 8, 3), i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    said = refused(
        prepare_command.main,
        "folder",
        f"--source={tmp_path / 'pictures'}",
        f"--data_dir={tmp_path / 'data'}",
        "--num_workers=1",
        "--image_size=8",
    )
    assert str(tmp_path / "data") in said
