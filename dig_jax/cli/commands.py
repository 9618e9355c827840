"""What the command line answers without a run: `list`, `completion`, `--explain`, ...

These words stand before any flag. Each imports what it needs when it is asked.
"""

from collections.abc import Callable

from dig_jax.errors import InputError


def _list(words: list[str]) -> str:
    from dig_jax.cli.listing import list_kind

    return list_kind(words)


def _completion(words: list[str]) -> str:
    from dig_jax.cli.completion import completion

    return completion(words)


def _reference(words: list[str]) -> str:
    from dig_jax.cli.reference import reference

    if words:
        raise InputError(f"dig_jax reference takes nothing, got {' '.join(words)}.")
    return reference()


COMMANDS: dict[str, Callable[[list[str]], str]] = {
    "list": _list,
    "completion": _completion,
    "reference": _reference,
}
COMMAND_HELP = {
    "list WHAT": "what can be chosen, a line each: backbones, configs, datasets, "
    "metrics, modes, sdes, sections, solvers, time_grids",
    "completion SHELL": "a script by which bash, zsh or fish completes flags and keys "
    "(docs/tools.md)",
    "reference": "every key of a configuration, as docs/configuration.md has them",
}


def answer(arguments: list[str]) -> str | None:
    """What a command or `--explain=KEY` prints; None where a mode is asked for.

    Raises:
        InputError: An unknown command, or one that does not fit.
    """
    first, *words = arguments
    if first in COMMANDS:
        return COMMANDS[first](words)
    if not first.startswith("-"):
        raise InputError(
            f"Unknown command {first!r}. Available: {', '.join(COMMANDS)}; everything "
            f"else has the form --name=value."
        )
    return _explained(arguments)


def _explained(arguments: list[str]) -> str | None:
    pending = iter(arguments)
    for argument in pending:
        name, equals, value = argument.partition("=")
        if name in ("--explain", "-explain"):
            from dig_jax.cli.explain import explain

            asked = value if equals else next(pending, "")
            others = [a for a in arguments if a not in (argument, asked)]
            if others or arguments.count(argument) > 1:
                raise InputError(
                    "--explain=KEY stands alone and takes one key, got also "
                    f"{' '.join(others) or argument}."
                )
            if not asked:
                raise InputError(
                    "--explain=KEY needs a key, as in --explain=backbone.hops, or a "
                    "section, as in --explain=backbone."
                )
            return explain(asked)
    return None
