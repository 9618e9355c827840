"""The exported sample.py: its mistakes and exit codes."""

import sys

import pytest

from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
)
from dig_jax.export import standalone
from dig_jax.storage.export_folder import read_manifest


@pytest.fixture
def script(exported, monkeypatch, capsys):
    """sample.py of the export as a command: exit code, and what it says."""
    monkeypatch.setattr(standalone, "__file__", str(exported / "sample.py"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sample.py", *arguments])
        code = standalone.main()
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--labels=cat", "invalid labels value: 'cat'"),
        ("--labels=10", "labels in range(0, 10), got"),
        ("--x=1", "arguments: --x=1"),
        ("--num_images=many", "invalid int value: 'many'"),
        ("--num_images=0", "needs num_images >= 1"),
        ("--out=none/samples.png", "there is no folder none"),
        ("--out=samples.jpg", "must end in .png or .npz, got samples.jpg"),
        ("--out=folder.png", "is a folder: name a file in it"),
        ("--out=export/examples.png", "is a file of this export: choose another"),
    ],
)
def test_a_mistake_of_sample_py_is_one_line(
    argument, said, script, exported, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "export").symlink_to(exported)
    code, error = script(argument)
    assert code == EXIT_BAD_INPUT
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    read_manifest(exported)


def test_the_exit_codes_of_sample_py_are_those_of_dig_jax(script, monkeypatch):
    for error, code in (
        (standalone.NonFiniteError("x"), EXIT_NON_FINITE),
        (standalone.InputError("x"), EXIT_BAD_INPUT),
        (PermissionError(13, "Permission denied"), EXIT_BAD_INPUT),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(standalone, "draw_images", fail)
        assert script()[0] == code
