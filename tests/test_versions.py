"""A package that is too old is said in a line, before anything is imported of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dig_jax.errors import EXIT_BAD_INPUT
from dig_jax.versions import Unmet, check_versions, find_unmet

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"


def install_in_name_only(folder, name, version):
    """What pip leaves of a package for others to ask about."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (about / "METADATA").write_text(text)


def test_what_is_installed_here_is_new_enough():
    check_versions()


def test_an_old_package_ends_the_command_with_one_line(tmp_path):
    install_in_name_only(tmp_path, "orbax-checkpoint", "0.11.0")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "dig_jax.main", "--mode=summary"]
    done = subprocess.run(
        [*command, f"--config={CONFIG}"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
    assert done.stderr.startswith("error: orbax-checkpoint>=0.12")
    assert "is needed, 0.11.0 is installed: pip install 'orbax-ch" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("bounds", "is_enough"),
    [(">=2.0,<3", False), (">=1.2,<2", True), ("<1.2", True), (">=1.2.3.dev0", True)],
)
def test_only_lower_bounds_count(tmp_path, monkeypatch, bounds, is_enough):
    install_in_name_only(tmp_path, "some-package", "1.2.3")
    monkeypatch.syspath_prepend(tmp_path)
    unmet = find_unmet([f"some-package{bounds}", "another; extra == 'test'"])
    too_old = Unmet("some-package", ">=2.0", "1.2.3", "some-package<3,>=2.0")
    assert unmet == ([] if is_enough else [too_old])


def test_a_missing_package_is_unmet():
    (unmet,) = find_unmet(["no-such-package>=1"])
    assert unmet == Unmet("no-such-package", ">=1", None, "no-such-package>=1")
