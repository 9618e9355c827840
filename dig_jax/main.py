"""The command line: `python -m dig_jax.main`; see `cli/flag_table.py`."""

import sys
import traceback

from dig_jax.cli.command_line import parse
from dig_jax.cli.commands import answer
from dig_jax.cli.help_text import help_text
from dig_jax.cli.modes import COMPILING, MODES
from dig_jax.devices.compilation_cache import use_compilation_cache
from dig_jax.devices.compiling import is_left_behind
from dig_jax.devices.device_errors import device_error
from dig_jax.devices.processes import (
    end_processes,
    exit_now,
    failed_peer,
    is_distributed,
    peer_error,
    processes_of,
    start_processes,
)
from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    EXIT_PEER_FAILURE,
    EXIT_UNFORESEEN,
    CheckpointCorruptError,
    InputError,
    NonFiniteError,
)
from dig_jax.files.shown import say, spell_out_logs
from dig_jax.versions import check_versions


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if not arguments or {"--help", "-h", "--helpfull"} & set(arguments):
        say(help_text())
        return EXIT_DONE
    spell_out_logs()
    try:
        check_versions()
        if (answered := answer(arguments)) is not None:
            say(answered)
            return EXIT_DONE
        mode, config, options = parse(arguments, MODES)
        processes = processes_of(options)
        if processes is not None and not options.dry_run:
            start_processes(processes)
        if mode in COMPILING and not options.dry_run:
            use_compilation_cache(options.compilation_cache)
        code = MODES[mode](config, options)
    except BaseException as error:
        code = _explain(error)
    return end_processes(code)


def _explain(error: BaseException) -> int:
    """Say what went wrong; returns the exit code.

    Raises:
        BaseException: The error itself, if nobody foresaw it.
    """
    if (needed := device_error(error)) is not None:
        say(f"error: {needed}", error=True)
        return EXIT_BAD_INPUT
    if (peer := peer_error(error)) is not None:
        say(f"peer failure: {peer}", error=True)
        if is_distributed() and (failed := failed_peer()) is not None:
            # To start all again, as after 76, would not help.
            number, code = failed
            say(f"process {number} failed by itself, with {code}", error=True)
            return code
        return EXIT_PEER_FAILURE
    match error:
        case InputError() | CheckpointCorruptError() | OSError():
            # OSError: a full disk, a folder that may not be written.
            say(f"error: {error}", error=True)
            return EXIT_BAD_INPUT
        case NonFiniteError():
            say(f"not finite: {error}", error=True)
            return EXIT_NON_FINITE
        case KeyboardInterrupt():
            say("interrupted", error=True)
            return EXIT_INTERRUPTED
    if is_distributed():  # Python's own exit would wait for the other processes
        traceback.print_exception(error)
        return EXIT_UNFORESEEN
    raise error


def command() -> int:
    """Run this process's command line; returns the exit code, or ends at once.

    Python's own exit would wait for a compilation that Ctrl-C has interrupted.
    """
    code = main(sys.argv[1:])
    if is_left_behind():
        exit_now(code)
    return code


if __name__ == "__main__":
    sys.exit(command())
