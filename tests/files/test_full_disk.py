"""A full disk is told with the name of the file that there was no room for."""

from pathlib import Path

import pytest

from dig_jax.files.paths import naming_file, written_whole

FULL = Path("/dev/full")


def fill():
    with FULL.open("wb") as file:
        file.write(b"a")


@pytest.mark.skipif(not FULL.exists(), reason="Linux's device that is always full")
def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "samples.npz"
    full = r"No space left on device.*"
    with pytest.raises(OSError, match=full + r"samples\.npz"), written_whole(path):
        fill()
    assert list(tmp_path.iterdir()) == []
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(OSError, match=full + "elsewhere"), naming_file(elsewhere):
        fill()


def test_an_error_that_names_a_file_keeps_it(tmp_path):
    other = tmp_path / "other"
    with pytest.raises(FileNotFoundError, match="none"), naming_file(other):
        (tmp_path / "none").read_bytes()
