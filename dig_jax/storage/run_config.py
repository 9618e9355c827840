"""A run's configuration: config.json, held against the one in its checkpoints.

A checkpoint's configuration is what its parameters are of. config.json is for people,
and for a run that has no checkpoint yet.
"""

import contextlib
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from dig_jax.config import (
    CONFIG_FILE,
    NO_CONFIG,
    ON_PURPOSE,
    check_sections,
    config_differences,
    config_of,
    load_run_config,
    save_run_config,
)
from dig_jax.errors import InputError
from dig_jax.files.checked_json import read_checked
from dig_jax.files.paths import CHECKPOINTS, AnyPath
from dig_jax.files.shown import printable
from dig_jax.storage.meta_file import finished_steps, read_meta_file

AGAIN = "Delete it, and it is written again from the run's checkpoint"


class SavedConfig(NamedTuple):
    """The configuration in a checkpoint, and the checkpoint's step."""

    config: ConfigDict
    step: int


def find_saved_config(workdir: AnyPath) -> SavedConfig | None:
    """The configuration in the newest checkpoint of a workdir that tells it."""
    folder = workdir / CHECKPOINTS
    for step in reversed(finished_steps(folder)):
        with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
            config = config_of(read_meta_file(folder / str(step))["config"])
            return SavedConfig(check_sections(config, f"{folder}/{step}"), step)
    return None


def restore_run_config(workdir: AnyPath, *, write: bool) -> ConfigDict:
    """The configuration of config.json or, where that is missing, of a checkpoint.

    Args:
        workdir: Of the run.
        write: Whether a missing config.json is written again, if that can be done.

    Raises:
        InputError: There is neither; or config.json is damaged, and if a checkpoint
            tells what it was, the keys that are another.
    """
    path = workdir / CONFIG_FILE
    saved = find_saved_config(workdir)
    if saved is None:
        return load_run_config(workdir)
    if path.is_file():
        _check_sound(path, saved)
        return load_run_config(workdir)
    done = "the configuration of the checkpoint is taken"
    if write:
        with contextlib.suppress(OSError):
            save_run_config(saved.config, workdir)
            done = "written again from the checkpoint"
    logging.warning("%s was missing: %s of step %d.", path, done, saved.step)
    return saved.config


def _check_sound(path: AnyPath, saved: SavedConfig) -> None:
    """Raise InputError where a config.json is not what was written."""
    values, sound = read_checked(path, NO_CONFIG, f"{AGAIN}.")
    if sound:
        return
    changes = config_differences(saved.config, config_of(values))
    listed = "; ".join(f"{key}: {a!r} -> {b!r}" for key, (a, b) in changes.items())
    raise InputError(
        f"{path} is damaged: its checksum is not the one in it. It differs from the "
        f"checkpoint of step {saved.step} (there -> here) in "
        f"{printable(listed) or 'no key'}. {AGAIN}; or, "
        f"{ON_PURPOSE}"
    )
