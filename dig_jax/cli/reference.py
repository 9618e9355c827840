"""`dig_jax reference`: docs/configuration.md, every key of a configuration."""

import re

from dig_jax.cli.key_entries import (
    COMPARE,
    Entry,
    all_entries,
    names_in,
    sections,
)
from dig_jax.options.keys import Marks

HEAD = """\
# Every key of a configuration

A configuration has the sections below and a `seed`. Every key can be set in its file,
or on the command line as `--config.SECTION.KEY=VALUE`; a key that is left out has its
default. `python -m dig_jax.main --explain=SECTION.KEY` prints one entry, and
`--explain=SECTION` lists a section.

The column *Resume* says whether a run that has begun may go on with another value, and
the column *Changes* what another value changes: `training`, what a training step
computes; `images`, the images that the same parameters draw; `inpainted images`, only
those that are drawn around known pixels; with `~`, in rounding alone.

This page is printed by `python -m dig_jax reference` from the package itself.
"""


def reference() -> str:
    """The page, in Markdown."""
    entries = all_entries()
    parts = [HEAD]
    for section, told in sections().items():
        parts.append(_section(section, told, entries))
    parts.append(_section("", "Beside the sections stands one key.", entries))
    parts.append(_section(COMPARE, "Of configurations of comparisons alone.", entries))
    return "\n".join(parts)


def _section(name: str, told: str, entries: list[Entry]) -> str:
    mine = [entry for entry in entries if entry.section == name]
    lines = [f"## {name or 'seed'}", "", _escaped(told), ""]
    if named := names_in(name):
        lines += ["| Name | What it is |", "|---|---|"]
        lines += [f"| `{entry}` | {_escaped(said)} |" for entry, said in named.items()]
        lines += [""]
    marked = any(entry.marks for entry in mine)
    lines += ["| Key | Type | Default | Meaning |" + " Resume | Changes |" * marked]
    lines += ["|---|---|---|---|" + "---|---|" * marked]
    lines += [_row(entry, marked=marked) for entry in mine]
    return "\n".join([*lines, ""])


def _row(entry: Entry, *, marked: bool) -> str:
    meaning = _escaped(entry.meaning)
    if entry.choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in entry.choices)}."
    if entry.names:
        meaning += f" *Of {', '.join(f'`{name}`' for name in entry.names)}.*"
    cells = [f"`{entry.key}`", _escaped(entry.type), _default(entry), meaning]
    if marked and entry.marks is not None:
        cells += ["yes" if entry.marks.free else "no", _changes(entry.marks)]
    return f"| {' | '.join(cells)} |"


def _default(entry: Entry) -> str:
    def shown(value: str) -> str:
        return value if value == "must be given" else f"`{value}`"

    if len(entry.defaults) == 1:
        return shown(next(iter(entry.defaults)))
    said = entry.defaults.items()
    return "; ".join(f"{shown(value)} ({', '.join(names)})" for value, names in said)


def _changes(marks: Marks) -> str:
    images = "inpainted images" if marks.known else "images"
    changed = ["training"] * marks.bits + [images] * marks.images
    about = "~" if marks.free and marks.bits else ""
    return ", ".join(about + what for what in changed) or "nothing"


def _escaped(text: str) -> str:
    """Text as Markdown shows it as it is, within a table too; `code` stays code."""
    parts = re.split(r"(`[^`|]+`)", text)
    special = r"([\\`*<>|$~]|(?<!\w)_|_(?!\w)|\[|\])"
    return "".join(
        part if i % 2 else re.sub(special, r"\\\1", part)
        for i, part in enumerate(parts)
    )
