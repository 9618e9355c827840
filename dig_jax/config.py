"""Configurations: from a file or a workdir, checked, compared, and into constructors.

A configuration is an `ml_collections.ConfigDict` of flat sections. A section's keys are
the keywords of the constructor that it is for, so that each default and each type
stands in one place: the constructor's signature.
"""

import inspect
import json
import math
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ml_collections import ConfigDict

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, open_path, read_text, write_whole

T = TypeVar("T")

SECTIONS = (
    "backbone",
    "data",
    "evaluation",
    "mesh",
    "objective",
    "optimizer",
    "sample",
    "sde",
    "training",
)

# What may differ between a run and its restart: nothing here changes what the
# parameters mean or which steps have been taken.
FREE_KEYS = (
    "backbone.aggregation",
    "backbone.attention",
    "backbone.node_multiple",
    "backbone.remat",
    "backbone.token_multiple",
    "backbone.unroll",
    "data.data_dir",
    "data.max_damaged_share",
    "data.num_threads",
    "data.num_workers",
    "evaluation",
    "mesh",
    "sample",
    "training.checkpoint_every",
    "training.diversity_every",
    "training.evaluate_every",
    "training.evaluate_images",
    "training.keep_best",
    "training.keep_checkpoints",
    "training.log_every",
    "training.microbatch",
    "training.num_steps",
    "training.posthoc_every",
    "training.sample_every",
    "training.samples_per_class",
    "training.watchdog_seconds",
)


def load_config_file(path: str) -> ConfigDict:
    """The configuration of a run, from a Python file (see `read_config_file`).

    Raises:
        InputError: No such file, or not a run's configuration.
    """
    return check_sections(read_config_file(path), path)


def read_config_file(path: str) -> ConfigDict:
    """What `get_config()` of a Python file returns.

    `FILE.py:VARIANT` passes the text after the colon to `get_config`.

    Raises:
        InputError: No such file, or it does not give a ConfigDict.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise InputError(
            f"--config needs a Python file with get_config(), got {file!r}, which does "
            f"not exist."
        )
    if Path(file).suffix != ".py":  # it will be run
        raise InputError(
            f"--config needs a Python file with get_config(), FILE.py, got {file!r}."
        )
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
    config = get_config(*arguments)
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"get_config() of {file} must return an ml_collections.ConfigDict, got "
            f"{type(config).__name__}."
        )
    return config


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


def load_run_config(workdir: str | AnyPath) -> ConfigDict:
    """The configuration of the run in a workdir.

    Raises:
        InputError: There is no run, or its config.json cannot be read.
    """
    path = open_path(workdir) / "config.json"
    if not path.is_file():
        raise InputError(
            f"No run in {workdir}: config.json is missing. Train one with "
            f"`python -m dig_jax.main --config=FILE --workdir={workdir}`."
        )
    try:
        config = config_from_json(read_text(path))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a configuration: {error}.") from error
    return check_sections(config, str(path))


def save_run_config(config: ConfigDict, workdir: str | AnyPath) -> None:
    """Write config.json into a workdir, whole or not at all."""
    path = open_path(workdir) / "config.json"
    write_whole(path, config_to_json(config) + "\n")


def config_to_json(config: ConfigDict) -> str:
    """A configuration as JSON text."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def config_from_json(text: str) -> ConfigDict:
    """A configuration from JSON text; lists become tuples, as in config files."""

    def as_tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_tuples(v) for key, v in value.items()}
        return tuple(value) if isinstance(value, list) else value

    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError(f"it must be a JSON object, got {type(values).__name__}")
    return ConfigDict(as_tuples(values))


def check_sections(config: ConfigDict, origin: str) -> ConfigDict:
    """Raise InputError unless there are exactly the known sections and a seed."""
    needed = {*SECTIONS, "seed"}
    unknown, missing = set(config) - needed, needed - set(config)
    if unknown or missing:
        raise InputError(
            f"A configuration has the sections {', '.join(SECTIONS)} and a seed; "
            f"{origin} "
            + "; ".join(
                f"{what} {', '.join(sorted(names))}"
                for what, names in (("lacks", missing), ("has unknown", unknown))
                if names
            )
            + "."
        )
    if not isinstance(config.seed, int) or config.seed < 0:
        raise InputError(f"seed must be a whole number from 0 on, got {config.seed!r}.")
    return config


def config_differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, each with the old and the new value."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    return {
        key: (flat_old.get(key), flat_new.get(key))
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
    }


def check_same_run(
    old: ConfigDict, new: ConfigDict, workdir: str | AnyPath
) -> list[str]:
    """What a restart changes, a line for each key.

    Raises:
        InputError: A key differs that makes it another run.
    """
    changes = config_differences(old, new)
    lines = {key: f"{key}: {a!r} -> {b!r}" for key, (a, b) in changes.items()}
    fixed = [line for key, line in lines.items() if not _is_free(key)]
    if fixed:
        raise InputError(
            f"{workdir} holds a run of another configuration. These keys differ (there "
            f"-> here): {'; '.join(fixed)}. Use another --workdir, or the same values."
        )
    return list(lines.values())


def with_defaults(
    section: ConfigDict, *functions: Callable[..., Any]
) -> dict[str, Any]:
    """A section with the keys that it leaves at their constructors' defaults."""
    defaults = {
        name: keyword.default
        for function in functions
        for name, keyword in inspect.signature(function).parameters.items()
        if keyword.default is not inspect.Parameter.empty
    }
    return defaults | section.to_dict()


def call_with_section(
    name: str,
    function: Callable[..., T],
    section: Mapping[str, Any],
    **more: Any,
) -> T:
    """Call a constructor with a section's keys, checked against its signature.

    Args:
        name: The section's name, for messages.
        function: A function or dataclass whose keywords are annotated with types.
        section: Keywords from the configuration.
        **more: Keywords that do not come from the configuration.

    Raises:
        InputError: An unknown key, a missing one, or a value of a wrong type or range.
    """
    keywords = inspect.signature(function).parameters
    choices = sorted(set(keywords) - set(more))
    for key in section:
        if key not in choices:
            raise InputError(
                f"Unknown key config.{name}.{key}. Available: {', '.join(choices)}."
            )
        if isinstance(section[key], float) and not math.isfinite(section[key]):
            raise InputError(f"config.{name}.{key} must be finite, got {section[key]}.")
    try:
        if inspect.isclass(function):
            return pydantic.TypeAdapter(function).validate_python({**section, **more})
        return pydantic.validate_call(function)(**section, **more)
    except pydantic.ValidationError as error:
        raise InputError(_describe(name, error)) from None


def _describe(name: str, error: pydantic.ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # raised by the constructor itself
            problems.append(str(cause))
            continue
        key = ".".join(str(part) for part in problem["loc"])
        if "missing" in problem["type"]:
            problems.append(f"config.{name}.{key} is missing.")
        else:
            message = problem["msg"].replace("Input should be", "must be", 1)
            problems.append(f"config.{name}.{key} {message}, got {problem['input']!r}.")
    return " ".join(problems)


def _flatten(config: ConfigDict | Mapping, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in FREE_KEYS)
