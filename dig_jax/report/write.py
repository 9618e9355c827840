"""The report of a folder: what is in it is found out, and its page written."""

import json

from dig_jax.errors import InputError
from dig_jax.files.paths import CHECKPOINTS, AnyPath, open_workdir, write_whole
from dig_jax.files.reading import read_json, readable
from dig_jax.report.comparison_page import comparison_page
from dig_jax.report.export_page import export_page
from dig_jax.report.page import Page
from dig_jax.report.run_page import run_page
from dig_jax.reporting import REPORT
from dig_jax.storage.export_folder import MANIFEST, is_export
from dig_jax.storage.meta_file import finished_steps

COMPARISON = "compare.json"


def write_report(workdir: str | AnyPath) -> AnyPath:
    """Write report.html of a run, a comparison or an export; returns its path.

    The file is whole or not there, and needs nothing beside it. What a folder lacks is
    left out, and said on the page.

    Args:
        workdir: Of a run that is done or still trains, of a comparison of which a run
            has been scored, or an export.

    Raises:
        InputError: It is none of these, or what says so is damaged.
        OSError: It cannot be written.
    """
    return write_page(open_workdir(workdir))


def write_page(folder: AnyPath) -> AnyPath:
    """The same for a folder that is open; see `write_report`."""
    path = folder / REPORT
    if path.is_dir():
        raise InputError(
            f"A report is written to {path}, which must be a file, got a folder: move "
            "it away."
        )
    page = create_page(folder)
    write_whole(path, page.to_html())
    return path


def create_page(folder: AnyPath) -> Page:
    """The page of a folder.

    Raises:
        InputError: It is no run, comparison or export, or a damaged one.
    """
    if not folder.is_dir():
        raise InputError(
            f"A report needs the folder of a run, a comparison or an export; there is "
            f"no folder {folder}."
        )
    if is_export(folder):
        return export_page(folder)
    if (folder / COMPARISON).is_file():
        path, what = folder / COMPARISON, "is not the record of a comparison"
        record = read_json(path, what)
        with readable(path, what, "Compare again with the same command writes it."):
            return comparison_page(record, folder)
    if _is_comparison(folder):
        raise InputError(
            f"The comparison in {folder} has no {COMPARISON} yet: it is written when "
            f"the first of its runs has been scored."
        )
    if (folder / "config.json").is_file() or finished_steps(folder / CHECKPOINTS):
        return run_page(folder)
    raise InputError(
        f"{folder} is no run, comparison or export: it has neither config.json nor "
        f"checkpoints/, {COMPARISON} or {MANIFEST}."
    )


def _is_comparison(folder: AnyPath) -> bool:
    """Whether a configuration there is of a comparison."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"base", "variants"} <= values.keys()
