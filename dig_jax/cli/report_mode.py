"""--mode=report, and the page that training, comparing and exporting end with."""

from __future__ import annotations

from absl import flags
from ml_collections import ConfigDict

from dig_jax.cli.command_line import workdir_of
from dig_jax.errors import EXIT_DONE
from dig_jax.files.paths import AnyPath, check_writable
from dig_jax.files.reading import reason_of
from dig_jax.files.shown import say
from dig_jax.reporting import REPORT


def report_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=report: write report.html of a run, a comparison or an export."""
    import jax

    if not jax.config.values["jax_platforms"]:  # it needs no device
        jax.config.update("jax_platforms", "cpu")
    workdir = workdir_of(options)
    if workdir.is_dir():
        check_writable(workdir, "Copy the folder to where files can be made.")
    say(f"Wrote {report_of(workdir)}: open it in any browser.")
    return EXIT_DONE


def report_of(workdir: AnyPath) -> AnyPath:
    """Write the page of a workdir; imported when it is first written."""
    from dig_jax.report.write import write_page

    return write_page(workdir)


def try_report(workdir: AnyPath) -> None:
    """Write the page of what is done; if that fails, say so in a line."""
    try:
        report_of(workdir)
    # Whatever it is: what the page is of is there.
    except Exception as error:
        say(f"{REPORT} was not written: {reason_of(error)}")
