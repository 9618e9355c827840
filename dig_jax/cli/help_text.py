"""What `--help` prints: the table of flags, as people read it."""

import textwrap
from collections.abc import Iterable

from dig_jax.cli.columns import WIDTH, side_by_side
from dig_jax.cli.commands import COMMAND_HELP
from dig_jax.cli.flag import Flag
from dig_jax.cli.flag_table import FLAGS, MODE_HELP

INDENT = 28

COMMAND = "python -m dig_jax.main --config=FILE --workdir=DIR [--mode=MODE] [options]"
ALIASES = "(`python -m dig_jax` and, once installed, `dig_jax` are the same.)"
EXIT_CODES = (
    "Exit codes: 0 done (or saved after SIGTERM), 75 no progress, 76 another process "
    "of the run was lost (start all again after either), 77 not finite, 78 bad "
    "configuration or input, 130 saved after Ctrl-C."
)


def help_text() -> str:
    """What --help prints."""
    parts = [
        "Train, sample and look at image-diffusion backbones.",
        f"    {COMMAND}\n{ALIASES}",
        "\n".join(["Modes:", *(side_by_side(n, t, 12) for n, t in MODE_HELP.items())]),
        "\n".join(
            [
                "Instead of a mode, after `dig_jax` or `python -m dig_jax`:",
                *(side_by_side(n, t, INDENT) for n, t in COMMAND_HELP.items()),
            ]
        ),
        "\n".join(["Options:", *_flag_entries(f for f in FLAGS if not f.several)]),
        "\n".join(
            [
                "Several processes (train), which share a workdir and end together:",
                *_flag_entries(f for f in FLAGS if f.several),
            ]
        ),
        textwrap.fill(EXIT_CODES, WIDTH, break_on_hyphens=False),
    ]
    return "\n\n".join(parts)


def _flag_entries(shown: Iterable[Flag]) -> list[str]:
    return [
        side_by_side(flag.usage, ", ".join(modes) + ": " * bool(modes) + said, INDENT)
        for flag in shown
        for modes, said in flag.help.items()
    ]
