"""A command line: mode, configuration, and the other flags, checked."""

import ast
from collections.abc import Collection
from typing import Literal

from absl import flags
from ml_collections import ConfigDict, config_flags

from dig_jax.cli.flag_table import COMPLETIONS, FLAGS, define_flags
from dig_jax.config import (
    check_sections,
    read_config_file,
    with_values,
)
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, open_workdir
from dig_jax.files.pretrained import find_shipped
from dig_jax.files.shown import say
from dig_jax.options import OPTIONAL_SECTIONS, SECTIONS
from dig_jax.options.keys import keys_of, meaning_of
from dig_jax.options.words import split_words
from dig_jax.storage.run_config import restore_run_config

WITHOUT_CONFIG = ("report",)
"""The modes that take no configuration."""
VALUE_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values such as 2,4",
}


READS_PRETRAINED = (
    "sample",
    "evaluate",
    "export",
    "stats",
    "summary",
    "compile",
    "demo",
)
"""The modes that read a workdir, and write into `place_for_outputs` of it alone."""


def parse(
    arguments: list[str], modes: Collection[str]
) -> tuple[str, ConfigDict, flags.FlagValues]:
    """Mode, configuration and flags of a command line.

    Raises:
        InputError: An unknown flag, mode or key, or a value of a wrong type.
    """
    options = define_flags()
    mine, file = _take_config_file(arguments)
    about_config = [a for a in mine if a.lstrip("-").startswith("config.")]
    _parse_flags(options, [a for a in mine if a not in about_config])
    if options.mode not in modes:
        raise InputError(
            f"Unknown mode {options.mode!r}. Available: {', '.join(modes)}."
        )
    step_of(options)
    _check_modes(options)
    if options.mode in WITHOUT_CONFIG:
        if file is not None or about_config:
            given = "--config" if file is not None else about_config[0]
            raise InputError(
                f"--mode={options.mode} reads what is in the workdir and takes no "
                f"configuration, got {given}."
            )
        return options.mode, ConfigDict(), options
    of_run = options.mode in ("sample", "export", "demo") or (
        options.mode == "evaluate" and not options.samples
    )
    if of_run:
        reads = options.mode == "demo"
        written = restore_run_config(workdir_of(options), write=not reads)
        if file is not None:
            say(
                f"--config={file} is not read: {options.workdir} knows what its run is."
                " --config.SECTION.KEY=VALUE changes a key.",
                error=True,
            )
        config = _override(written, about_config)
        asked = [a.lstrip("-").partition("=")[0] for a in about_config]
        if options.known and "config.sample.num_images" not in asked:
            config = with_values(config, {"sample.num_images": COMPLETIONS})
    elif file is not None:
        config = read_config_file(file)
        tables = options.mode == "summary" and "tables" in config
        if options.mode == "compare" or tables:  # of several networks
            return options.mode, _override(config, about_config), options
        config = _override(check_sections(config, file), about_config)
    elif (
        options.mode in ("summary", "stats", "evaluate", "compile") and options.workdir
    ):
        written = restore_run_config(workdir_of(options), write=True)
        from dig_jax.experiment import check_run_keys  # the imports take a second

        check_run_keys(written, workdir_of(options))
        config = _override(written, about_config)
    else:
        raise InputError(
            "--config=FILE is needed: a Python file with get_config(), such as "
            "configs/digits.py."
        )
    config = check_sections(config, "the command line")
    if options.mode not in ("sample", "export", "demo"):  # of runs that are trained
        from dig_jax.from_data import fit_to_data  # the imports take a second

        config = fit_to_data(config)
    return options.mode, config, options


def _take_config_file(arguments: list[str]) -> tuple[list[str], str | None]:
    """Arguments without `--config=FILE` (or `--config FILE`), and FILE."""
    rest, file = [], None
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            file = value if equals else next(pending, "")
        else:
            rest.append(argument)
    return rest, file


def _parse_flags(options: flags.FlagValues, arguments: list[str]) -> None:
    try:
        positional = options(["dig_jax", *arguments])[1:]
    except flags.IllegalFlagValueError as error:
        raise InputError(_wrong_value(error)) from None
    except ValueError as error:  # as of --nodry_run=1
        raise InputError(f"{error}.") from None
    except flags.Error as error:
        said = str(error).rstrip(".")
        if not isinstance(error, flags.UnrecognizedFlagError):
            raise InputError(f"{said}.") from None
        choices = ", ".join(f"--{name}" for name in sorted(options))
        raise InputError(
            f"{said}. Available: --config, --config.SECTION.KEY, {choices}."
        ) from None
    if positional:
        raise InputError(
            f"Arguments have the form --name=value, got {' '.join(positional)!r}."
        )


def _wrong_value(error: flags.IllegalFlagValueError) -> str:
    """What a flag's value must be, and what it is."""
    said = str(error).removesuffix(f": {error.__context__}")
    name, _, value = said.removeprefix("flag --").partition("=")
    (flag,) = (flag for flag in FLAGS if flag.name == name)
    match flag.kind:
        case "whole":
            needed = "a whole number"
            needed += f" from {flag.least} on" if flag.least is not None else ""
        case "choice":
            needed = f"one of {', '.join(flag.choices)}"
        case _:
            needed = VALUE_KINDS[bool]
    return f"--{name} must be {needed}, got {value!r}."


def _check_modes(options: flags.FlagValues) -> None:
    """Raise InputError for a flag that the mode would pass over in silence."""
    for flag in FLAGS:
        if not flag.modes or options.mode in flag.modes:
            continue
        if options[flag.name].present:
            of_modes = " or ".join(f"--mode={mode}" for mode in flag.modes)
            raise InputError(
                f"--{flag.name} goes with {of_modes}, and --mode={options.mode} does "
                "nothing with it."
            )


def _override(config: ConfigDict, arguments: list[str]) -> ConfigDict:
    """Apply `--config.SECTION.KEY=VALUE` arguments, each of its key's own type.

    A whole number may become several, as in --config.data.image_size=8,16. A key that
    the section leaves at its default may be given too; constructors say whether it
    exists, and whether they take the value.
    """
    config.lock()
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise InputError(f"{argument} needs a value: {name}=VALUE.")
        key = name.lstrip("-").removeprefix("config.")
        section, leaf = _find_key(config, key)
        if section.get(leaf) is None:
            with section.unlocked():
                section[leaf] = _read_value(value)
            continue
        old_type = type(section[leaf])
        try:
            if old_type is tuple:
                section[leaf] = _read_several(value, section[leaf])
            elif old_type is int and "," in value:
                with config.ignore_type():
                    section[leaf] = tuple(ast.literal_eval(value))
            else:
                _parse_config_flag(config, f"--config.{key}={value}")
        except (flags.Error, ValueError, TypeError, SyntaxError):
            said = f"{name} must be {VALUE_KINDS[old_type]}, got {value!r}."
            raise InputError(said + _meaning(key)) from None
    return config


def _meaning(key: str) -> str:
    """What a key is, for messages; "" where its section does not say."""
    *path, leaf = key.split(".")
    options = SECTIONS.get(path[-1]) if path else None
    known = keys_of(options).get(leaf) if options is not None else None
    return meaning_of(known)


def _find_key(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The innermost section that a dotted key names, and the key's name there."""
    *path, leaf = key.split(".")
    section, said = config, "config"
    for part in path:
        if part in OPTIONAL_SECTIONS and "seed" in section and part not in section:
            with section.unlocked():
                section[part] = ConfigDict()
        if part not in section:
            raise InputError(
                f"Unknown section in --config.{key}. Available in {said}: "
                f"{', '.join(sorted(section))}."
            )
        section, said = section[part], f"{said}.{part}"
        if not isinstance(section, ConfigDict):
            raise InputError(f"{said} has no keys, got --config.{key}.")
    if not path and leaf not in section:
        raise InputError(
            f"Unknown section in --config.{key}. Available in {said}: "
            f"{', '.join(sorted(section))}."
        )
    if isinstance(section.get(leaf), ConfigDict):
        raise InputError(
            f"--config.{key} is a section. Keys in it: "
            f"{', '.join(sorted(section[leaf])) or 'none'}."
        )
    return section, leaf


def _read_value(text: str) -> bool | int | float | str | tuple:
    """A value whose type is not known: as Python would read it, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return tuple(value) if isinstance(value, list) else value


def _read_several(text: str, before: tuple) -> tuple:
    """Several values: as Python would read them, else words with commas between.

    Raises:
        ValueError: Words where there were numbers.
    """
    value = _read_value(text)
    if isinstance(value, str):
        if any(not isinstance(one, str) for one in before):
            raise ValueError(text)
        return split_words(value)
    return value if isinstance(value, tuple) else (value,)


def _parse_config_flag(config: ConfigDict, argument: str) -> None:
    command = ["dig_jax", argument]
    flag = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=flag, sys_argv=command
    )
    flag(command)


def step_of(options: flags.FlagValues) -> int | Literal["best"] | None:
    """The checkpoint that --step names; None for the newest.

    Raises:
        InputError: It is neither a step nor "best".
    """
    if options.step is None or options.step == "best":
        return options.step
    if not options.step.isdecimal():
        raise InputError(
            f"--step must be a whole number from 0 on, or best, got "
            f"--step={options.step}."
        )
    return int(options.step)


def workdir_of(options: flags.FlagValues) -> AnyPath:
    """The workdir, which the mode needs; opened once, and kept as the flag's value.

    Raises:
        InputError: None is given, or it lies where nothing can, or the mode writes into
            it and it is a model of the package.
    """
    if not options.workdir:
        raise InputError(f"--mode={options.mode} needs --workdir=DIR.")
    if not isinstance(options.workdir, str):
        return options.workdir
    shipped = find_shipped(options.workdir)
    if shipped is not None and options.mode not in READS_PRETRAINED:
        raise InputError(
            f"--workdir={options.workdir} is a model that comes with dig_jax, and "
            f"--mode={options.mode} writes into its workdir: name a folder. To train "
            f"from that model on: --init_from={options.workdir}. It is read by "
            f"--mode={', '.join(READS_PRETRAINED)}."
        )
    options.workdir = open_workdir(options.workdir)
    return options.workdir
