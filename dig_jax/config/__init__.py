"""Configurations: from a file or a workdir, checked, compared, and into constructors.

A configuration is an `ml_collections.ConfigDict` of flat sections, as a file, a flag or
a config.json writes it. `dig_jax/options/` has the sections' keys;
`dig_jax/experiment` makes of all of them one experiment, and what comes after that
reads no configuration.
"""

import contextlib
import copy
import inspect
import json
import runpy
import shlex
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ml_collections import ConfigDict

from dig_jax.errors import InputError
from dig_jax.files.checked_json import read_checked, write_checked
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import parse_object
from dig_jax.files.shipped import shipped_configs
from dig_jax.options import OPTIONAL_SECTIONS, SECTIONS
from dig_jax.options.keys import call_with_section

T = TypeVar("T")
CONFIG_FILE = "config.json"
PARTS_OF_COMPARISON = ("base", "compare", "variants")
NO_CONFIG = "is not a configuration"
FROM_A_COPY = (
    "No checkpoint beside it says what it was: restore it from a copy (an export: "
    "export the run again), or start again with --config=FILE and another workdir."
)
ON_PURPOSE = "if you changed it on purpose, delete its line of the checksum, sha256."


def load_config_file(path: str) -> ConfigDict:
    """The configuration of a run, from a Python file (see `read_config_file`).

    Raises:
        InputError: No such file, or not a run's configuration.
    """
    return check_sections(read_config_file(path), path)


def read_config_file(path: str) -> ConfigDict:
    """What `get_config()` of a Python file returns.

    `FILE.py:VARIANT` passes the text after the colon to `get_config`. A FILE such as
    configs/digits.py that does not exist is the one that dig_jax brings along.

    Raises:
        InputError: No such file, an error in it, or it does not give a ConfigDict.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        file = _find_shipped(file)
    if Path(file).suffix != ".py":  # it will be run
        raise InputError(
            f"--config needs a Python file with get_config(), FILE.py, got {file!r}."
        )
    with _naming_line(file):
        get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise InputError(f"{file} has no function get_config().")
    arguments = (variant,) if variant else ()
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        raise InputError(
            f"get_config() of {file} does not fit --config={path} ({error}): FILE "
            f"passes it nothing, FILE:VARIANT one text."
        ) from None
    with _naming_line(file):
        config = get_config(*arguments)
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"get_config() of {file} must return an ml_collections.ConfigDict, got "
            f"{type(config).__name__}."
        )
    return config


@contextlib.contextmanager
def _naming_line(file: str) -> Iterator[None]:
    """Turns what the code of a configuration raises into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever users' code raises
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == Path(file)]
        said = str(error)
        if isinstance(error, SyntaxError):
            file, lines, said = error.filename or file, [error.lineno], error.msg
        place = ", line ".join(map(str, [file, *lines[-1:]]))
        said = " ".join(f"{type(error).__name__}: {said}".split())
        raise InputError(f"{place}: {said}") from error


def _find_shipped(file: str) -> str:
    """The configuration that dig_jax brings along under this name, configs/NAME.py.

    Raises:
        InputError: There is none.
    """
    found = shipped_configs()
    if file not in found:
        raise InputError(
            f"--config needs a Python file with get_config(), got {file!r}, which does "
            f"not exist. dig_jax brings along {', '.join(found) or 'none'}."
        )
    return str(found[file])


def choose_variant(variants: Mapping[str, T], name: str) -> T:
    """The variant of that name, for a `get_config` that has several.

    Raises:
        InputError: Unknown name.
    """
    if name not in variants:
        raise InputError(
            f"Unknown variant {name!r} of the configuration. Available: "
            f"{', '.join(variants)}."
        )
    return variants[name]


def load_run_config(workdir: AnyPath) -> ConfigDict:
    """The configuration of the run in a workdir.

    Raises:
        InputError: There is no run, or its config.json cannot be read, or it is that of
            a comparison.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"No run in {workdir}: config.json is missing. Train one with `python -m "
            f"dig_jax.main --config=FILE {shlex.quote(f'--workdir={workdir}')}`."
        )
    values, sound = read_checked(path, NO_CONFIG, FROM_A_COPY)
    if not sound:
        raise InputError(
            f"{path} {NO_CONFIG}: its checksum is not the one in it. {FROM_A_COPY} Or, "
            f"{ON_PURPOSE}"
        )
    if set(values) == set(PARTS_OF_COMPARISON):
        _refuse_comparison(workdir)
    return check_sections(config_of(values), str(path))


def _refuse_comparison(workdir: AnyPath) -> NoReturn:
    """Raise InputError for a comparison's workdir in place of a run's."""
    folder = workdir / "runs"
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    runs = [run for run in inside if (run / CONFIG_FILE).is_file()]
    such = shlex.quote(f"--workdir={runs[0]}") if runs else "none is there yet"
    raise InputError(
        f"{workdir} holds a comparison, not a run: its runs are in "
        f"{folder}/NAME-SEED ({such}). The comparison itself is taken by "
        "--mode=compare and --mode=report."
    )


def save_run_config(config: ConfigDict, workdir: AnyPath) -> None:
    """Write config.json into a workdir, whole or not at all, with a checksum."""
    write_checked(workdir / CONFIG_FILE, config.to_dict(), sort_keys=True)


def config_to_json(config: ConfigDict) -> str:
    """A configuration as JSON text."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def config_from_json(text: str) -> ConfigDict:
    """A configuration from JSON text; lists become tuples, as in config files."""
    return config_of(parse_object(text.encode()))


def config_of(values: Mapping[str, Any]) -> ConfigDict:
    """A configuration from a JSON object; lists become tuples, as in config files."""

    def as_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_tuples(v) for key, v in value.items()}
        return tuple(map(as_tuples, value)) if isinstance(value, list) else value

    return ConfigDict(as_tuples(values))


def check_sections(config: ConfigDict, origin: str) -> ConfigDict:
    """A configuration with all its sections, those of OPTIONAL_SECTIONS perhaps empty.

    Raises:
        InputError: Other sections, or no seed.
    """
    left_out = {name: {} for name in {*OPTIONAL_SECTIONS} - {*config}}
    needed = {*SECTIONS, "seed"} - {*left_out}
    unknown, missing = set(config) - needed, needed - set(config)
    if unknown or missing:
        found = (("lacks", missing), ("has unknown", unknown))
        said = [f"{what} {', '.join(sorted(names))}" for what, names in found if names]
        raise InputError(
            f"A configuration has the sections {', '.join(SECTIONS)} and a seed; "
            f"{origin} {'; '.join(said)}."
        )
    for name in SECTIONS:
        if not isinstance(config.get(name, ConfigDict()), ConfigDict):
            raise InputError(
                f"Section {name} of {origin} must have keys, got "
                f"{type(config[name]).__name__}."
            )
    if type(config.seed) is not int or config.seed < 0:
        raise InputError(f"seed must be a whole number from 0 on, got {config.seed!r}.")
    return with_sections(config, **left_out) if left_out else config


def config_differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, each with the old and the new value."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    return {
        key: (flat_old.get(key), flat_new.get(key))
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
    }


def with_values(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy with other values of some keys, named as in `training.num_steps`."""
    config = copy.deepcopy(config)
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict(values)
    return config


def with_sections(config: ConfigDict, **sections: dict[str, Any]) -> ConfigDict:
    """A copy with other sections in place of some."""
    return ConfigDict({**config.to_dict(), **sections})


def check_section(config: ConfigDict, name: str) -> Any:
    """A section whose keys depend on no name, as its dataclass in SECTIONS.

    Raises:
        InputError: An unknown key, or a value of a wrong type or range.
    """
    return call_with_section(name, SECTIONS[name], config[name].to_dict())


def _flatten(config: ConfigDict | Mapping, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat
