"""Counts of configurations beside published ones, as tables in Markdown.

A file of tables is a configuration of its own kind, such as configs/paper_tables.py:

    tables    (title, rows) of each; a row is (setting, label, FILE:VARIANT, parameters
              in millions, tera-MACs of a batch, FID), None where there is no figure
    folder    where the rows' files are
    batch     the images that the published MACs are for
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic import PositiveFloat, PositiveInt

from dig_jax.config import load_config_file
from dig_jax.costs.summary import Costs, count_costs
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment

MARKERS = ("<!-- counts: made by --mode=summary -->", "<!-- end of counts -->")
EMPTY = "-"
TEXT_COLUMNS = ("Images", "Backbone", "Configuration")


class PublishedRow(NamedTuple):
    """A row of a paper's table; None where it has no (legible) figure.

    Attributes:
        setting: The data set.
        label: The network, in the paper's words.
        config: Our configuration of it, FILE:VARIANT.
        params: Millions of parameters.
        macs: Tera-multiply-accumulates of a batch.
        fid: Frechet Inception distance.
    """

    setting: str
    label: str
    config: str
    params: PositiveFloat | None = None
    macs: PositiveFloat | None = None
    fid: PositiveFloat | None = None


class CountedRow(NamedTuple):
    """A published row, and what our network has."""

    published: PublishedRow
    costs: Costs


class CountTables(NamedTuple):
    """Tables by title, and the images that their MACs are for."""

    tables: dict[str, list[CountedRow]]
    batch: int


class TableFile(NamedTuple):
    """The parts of a file of tables."""

    tables: tuple[tuple[str, tuple[PublishedRow, ...]], ...]
    folder: Path
    batch: PositiveInt


def summarize_tables(
    tables: Mapping[str, Any], *, out: str | None = None, as_json: bool = False
) -> str:
    """What --mode=summary says of a file of tables.

    Args:
        tables: What the file holds; see the module.
        out: A file that the tables are written into.
        as_json: One JSON object instead of Markdown.

    Raises:
        InputError: Tables that do not work, or a file without markers.
    """
    counted = count_tables(tables)
    if out:
        write_tables(Path(out), counted)
        return f"Wrote {', '.join(counted.tables)} into {out}."
    return json.dumps(count_record(counted)) if as_json else format_tables(counted)


def count_tables(tables: Mapping[str, Any]) -> CountTables:
    """Count every row; nothing is computed but shapes.

    Raises:
        InputError: A row that is not one, or whose configuration does not work.
    """
    published = _check(tables)
    names = {row.config for _, rows in published.tables for row in rows}
    costs = {name: _count(published.folder, name) for name in sorted(names)}
    counted = {
        title: [CountedRow(row, costs[row.config]) for row in rows]
        for title, rows in published.tables
    }
    return CountTables(counted, published.batch)


def count_record(counted: CountTables) -> dict[str, Any]:
    """The tables as one JSON object."""
    return {
        "batch": counted.batch,
        "tables": {
            title: [
                {
                    "setting": row.setting,
                    "label": row.label,
                    "config": row.config,
                    "params": costs.params,
                    "macs_per_image": costs.macs,
                    "attention_macs_per_image": costs.attention_macs,
                    "published_params_millions": row.params,
                    "published_tera_macs": row.macs,
                    "published_fid": row.fid,
                }
                for row, costs in table
            ]
            for title, table in counted.tables.items()
        },
    }


def format_tables(counted: CountTables) -> str:
    """The tables in Markdown; a column without a figure is left out."""
    return "\n\n".join(
        f"**{title}**\n\n{_format_table(rows, counted.batch)}"
        for title, rows in counted.tables.items()
    )


def write_tables(path: Path, counted: CountTables) -> None:
    """Put the tables between the markers of a file, or into a new file.

    Raises:
        InputError: The file exists and has no such markers.
    """
    begin, end = MARKERS
    old = path.read_text(encoding="utf-8") if path.exists() else f"{begin}\n{end}\n"
    before, has_begin, rest = old.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise InputError(
            f"{path} must have the lines {begin!r} and {end!r}, which the tables go "
            f"between, or not exist yet."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"{before}{begin}\n\n{format_tables(counted)}\n\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def _check(tables: Mapping[str, Any]) -> TableFile:
    try:
        return pydantic.TypeAdapter(TableFile).validate_python(tables)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"A file of tables has tables (title, rows), folder and batch; a row is "
            f"(setting, label, FILE:VARIANT, params, macs, fid). {where}: "
            f"{first['msg']}, got {first['input']!r}."
        ) from None


def _count(folder: Path, name: str) -> Costs:
    experiment = create_experiment(load_config_file(str(folder / name)))
    # One turn of the loop is quick to trace; the stencil multiplies no matrices.
    quick = {"unroll": 1, "aggregation": "stencil"}
    known = experiment.backbone_options.keywords
    values = {f"backbone.{key}": quick[key] for key in quick if key in known}
    return count_costs(experiment.changed(values).backbone)


def _format_table(rows: list[CountedRow], batch: int) -> str:
    columns = {
        "Images": [row.setting for row, _ in rows],
        "Backbone": [row.label for row, _ in rows],
        "Configuration": [f"`{row.config}`" for row, _ in rows],
        **_compared(
            "Parameters (M)",
            [costs.params / 1e6 for _, costs in rows],
            [row.params for row, _ in rows],
            ".2f",
        ),
        **_compared(
            f"Tera-MACs x {batch}",
            [costs.macs * batch / 1e12 for _, costs in rows],
            [row.macs for row, _ in rows],
            ".4g",
        ),
        f"Tera-MACs x {batch} of attention": [
            _or_empty(costs.attention_macs * batch / 1e12 or None, ".2g")
            for _, costs in rows
        ],
        "FID: paper": [_or_empty(row.fid, "g") for row, _ in rows],
    }
    columns = {head: cells for head, cells in columns.items() if {*cells} - {EMPTY}}
    rule = [" --- " if head in TEXT_COLUMNS else " ---: " for head in columns]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(rule)}|"]
    for cells in zip(*columns.values(), strict=True):
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _compared(
    quantity: str, ours: list[float], paper: list[float | None], form: str
) -> dict[str, list[str]]:
    """Columns of ours, the paper's, and ours over the paper's less 1."""
    return {
        f"{quantity}: ours": [f"{value:{form}}" for value in ours],
        f"{quantity}: paper": [_or_empty(value, "g") for value in paper],
        f"{quantity}: residual": [
            # Rounded first, and 0 added: no "-0.0%".
            _or_empty(theirs and round(mine / theirs - 1, 3) + 0.0, "+.1%")
            for mine, theirs in zip(ours, paper, strict=True)
        ],
    }


def _or_empty(value: float | None, form: str) -> str:
    return EMPTY if value is None else f"{value:{form}}"
