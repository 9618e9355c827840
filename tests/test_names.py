"""What `import dig_jax` offers, and what `help` says of it."""

import pydoc
import re
import shutil
from pathlib import Path

import pytest

import dig_jax
from dig_jax.config import load_config_file

ROOT = Path(__file__).parents[1]
TABLES = ("BACKBONES", "DATASETS", "METRICS", "SDES", "SOLVERS", "TIME_GRIDS")


def test_every_name_is_there():
    for name in dig_jax.__all__:
        assert getattr(dig_jax, name) is not None
    assert set(dir(dig_jax)) == set(dig_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dig_jax.nothing  # noqa: B018


def test_there_is_one_version():
    written = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert "version=read_version()" in written
    assert re.fullmatch(r"\d+\.\d+\.\d+", dig_jax.__version__)
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {dig_jax.__version__}\n" in cited


@pytest.mark.parametrize("name", TABLES)
def test_help_on_a_table_says_what_each_entry_is(name):
    table = getattr(dig_jax, name)
    said = pydoc.plain(pydoc.render_doc(table))
    for entry in table:
        assert re.search(rf"^ +{entry}: \w", said, re.MULTILINE), entry


def test_configurations_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config_file("configs/digits.py").data.name == "digits"
    # A file that is there comes first.
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "digits.py"
    shutil.copy(ROOT / "configs" / "svhn.py", own)
    assert load_config_file("configs/digits.py").data.name == "svhn"
