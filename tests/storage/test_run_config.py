"""The checkpoint's configuration counts: config.json may be gone, or lie."""

import json
import shutil

import pytest
from processes import digits_config

from dig_jax.config import load_run_config, save_run_config
from dig_jax.errors import InputError
from dig_jax.files.checked_json import sha256_of
from dig_jax.run import load
from dig_jax.storage.run_config import find_saved_config, restore_run_config


@pytest.fixture
def config():
    return digits_config("nowhere", {"training.num_steps": 8})


@pytest.fixture
def workdir(config, tmp_path):
    """A run's config.json and what its checkpoint of step 4 says."""
    save_run_config(config, tmp_path)
    folder = tmp_path / "checkpoints" / "4"
    (folder / "meta").mkdir(parents=True)
    record = json.loads(json.dumps({"step": 4, "config": config.to_dict()}))
    saved = {"sha256": sha256_of(record), "record": record}
    (folder / "meta" / "metadata").write_text(json.dumps(saved))
    (folder / "commit_success.txt").touch()
    return tmp_path


def test_a_missing_config_json_is_written_again_from_the_checkpoint(workdir, config):
    text = (workdir / "config.json").read_text()
    (workdir / "config.json").unlink()
    assert restore_run_config(workdir, write=False) == config
    assert not (workdir / "config.json").exists()
    assert restore_run_config(workdir, write=True) == config
    assert (workdir / "config.json").read_text() == text


def test_without_either_there_is_no_run(workdir):
    (workdir / "config.json").unlink()
    (workdir / "checkpoints" / "4" / "commit_success.txt").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        restore_run_config(workdir, write=True)


def test_a_changed_config_json_is_refused_by_its_key(workdir):
    path = workdir / "config.json"
    path.write_text(path.read_text().replace('"beta_max": 20.0', '"beta_max": 24.0'))
    with pytest.raises(InputError, match=r"step 4 .*sde\.beta_max: 20\.0 -> 24\.0"):
        restore_run_config(workdir, write=True)
    with pytest.raises(InputError, match="its checksum is not the one in it"):
        load_run_config(workdir)


@pytest.mark.parametrize("damage", ["cut", "changed"])
@pytest.mark.parametrize("saved", [True, False], ids=["checkpoint", "no checkpoint"])
def test_a_damaged_config_json_is_told_what_helps(workdir, damage, saved):
    path = workdir / "config.json"
    text = path.read_text()
    cut, changed = text[: len(text) // 2], text.replace('"seed": 0', '"seed": 1')
    assert text != changed
    path.write_text(cut if damage == "cut" else changed)
    if not saved:
        (workdir / "checkpoints" / "4" / "commit_success.txt").unlink()
    with pytest.raises(InputError) as refused:
        restore_run_config(workdir, write=True)
    said = str(refused.value)
    assert ("Delete it, and it is written again" in said) == saved
    assert ("restore it from a copy" in said) != saved
    assert ("delete its line of the checksum" in said) == (damage == "changed")


def test_one_without_a_checksum_is_read(workdir, config):
    path = workdir / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert restore_run_config(workdir, write=False) == config


def test_a_damaged_checkpoint_tells_no_configuration(workdir):
    path = workdir / "checkpoints" / "4" / "meta" / "metadata"
    path.write_text(path.read_text().replace('"beta_max": 20.0', '"beta_max": 24.0'))
    assert find_saved_config(workdir) is None


def test_nothing_is_drawn_with_another_configuration(trained_runs, tmp_path):
    """Though it has no checksum, as after a change on purpose."""
    workdir = shutil.copytree(trained_runs.workdir(), tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    del values["sha256"]
    values["sde"]["beta_max"] = 24.0
    (workdir / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"sde\.beta_max: 20\.0 -> 24\.0"):
        load(workdir)
