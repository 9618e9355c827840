"""`dig_jax completion SHELL`: a script that completes flags, keys and their values.

The script has every word inside it, so that a TAB starts no Python.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dig_jax.cli.commands import COMMANDS
from dig_jax.cli.completion_scripts import BASH, FISH, ZSH
from dig_jax.cli.flag_table import FLAGS, MODE_HELP
from dig_jax.cli.key_entries import CHOICES
from dig_jax.cli.listing import KINDS
from dig_jax.cli.type_words import choices_of
from dig_jax.errors import InputError
from dig_jax.experiment import section_keys
from dig_jax.files.pretrained import PREFIX, shipped_names
from dig_jax.files.shipped import shipped_configs
from dig_jax.options import SECTIONS

RUNS = ("workdir", "init_from", "beside")
"""Flags whose values are runs: folders, or models that come with the package."""
FILES = ("config", *RUNS, "out", "known", "mask", "samples", "compilation_cache")
"""Flags whose values are files or folders."""


class Words(NamedTuple):
    """What there is to complete.

    Attributes:
        flags: With what follows the name: `=`, `.`, or nothing for a switch.
        sections: As in `--config.backbone.`.
        keys: As in `--config.backbone.hops=`.
        values: The values of a flag or key that lists them.
        commands: What may follow each command.
    """

    flags: list[str]
    sections: list[str]
    keys: list[str]
    values: dict[str, list[str]]
    commands: dict[str, list[str]]


def completion(words: list[str]) -> str:
    """The script for a shell.

    Raises:
        InputError: No shell, or one that there is no script for.
    """
    shell = " ".join(words)
    if shell not in SCRIPTS:
        raise InputError(
            f"dig_jax completion SHELL needs one of {', '.join(SCRIPTS)}; got "
            f"{shell or 'none'}."
        )
    return SCRIPTS[shell](collect_words())


def collect_words() -> Words:
    """All words, from the tables of flags and modes and from the sections."""
    flags = [
        f"--{flag.name}{'' if flag.kind == 'switch' else '='}"
        for flag in FLAGS
        if flag.name != "config.SECTION.KEY"
    ]
    keys = {
        f"{section}.{name}": key
        for section in SECTIONS
        for name, key in sorted(section_keys(section).items())
    }
    values = {f"--config.{name}": list(choices_of(k.type)) for name, k in keys.items()}
    values |= {f"--config.{name}": list(chosen) for name, chosen in CHOICES.items()}
    values |= {f"--{flag.name}": list(flag.choices) for flag in FLAGS}
    values["--mode"] = list(MODE_HELP)
    values["--step"] = ["best"]
    values["--config"] = list(shipped_configs())
    models = [PREFIX + name for name in shipped_names()]
    values |= {f"--{name}": models for name in RUNS}
    values["--explain"] = [*SECTIONS, *keys]
    return Words(
        [*flags, "--config."],
        [*(f"--config.{section}." for section in SECTIONS), "--config.seed="],
        [f"--config.{name}=" for name in keys],
        {name: listed for name, listed in values.items() if listed},
        {"list": list(KINDS), "completion": list(SCRIPTS)},
    )


def _parts(words: Words) -> dict[str, str]:
    """What every script has of them."""
    return {
        "flags": shlex.join(words.flags),
        "sections": shlex.join(words.sections),
        "keys": shlex.join(words.keys),
        "commands": shlex.join(COMMANDS),
    }


def _cases(values: Mapping[str, list[str]], branch: str) -> str:
    """Branches of a shell's `case`, of one name and its words each."""
    return "\n".join(branch % (name, shlex.join(v)) for name, v in values.items())


def _bash(words: Words) -> str:
    branch = " " * 12 + "%s) words=(%s) ;;"
    return BASH.format(
        **_parts(words),
        files="|".join(f"--{name}" for name in FILES),
        values=_cases(words.values, branch),
        after=_cases(words.commands, branch),
    )


def _zsh(words: Words) -> str:
    branch = " " * 12 + "(%s) compadd -- %s ;;"
    return ZSH.format(
        **_parts(words),
        files="|".join(f"--{name}" for name in FILES),
        values=_cases(words.values, branch),
        after=_cases(words.commands, branch),
    )


def _fish(words: Words) -> str:
    branch = " " * 16 + "case %s\n" + " " * 20
    return FISH.format(
        **_parts(words),
        files=" ".join(f"--{name}" for name in FILES),
        values=_cases(words.values, branch + "printf $name=%%s\\n %s"),
        after=_cases(words.commands, branch + "printf %%s\\n %s"),
    )


SCRIPTS: dict[str, Callable[[Words], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
