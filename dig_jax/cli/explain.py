"""`--explain=KEY`: what a key of a configuration is, or which keys a section has."""

import difflib
import re

from dig_jax.cli.columns import side_by_side
from dig_jax.cli.key_entries import (
    COMPARE,
    Entry,
    all_entries,
    marks_words,
    names_in,
    sections,
)
from dig_jax.errors import InputError

INDENT = 12


def explain(asked: str) -> str:
    """The entries of a key, as in backbone.hops or hops, or the list of a section.

    Raises:
        InputError: There is no such key and no such section: the nearest are named.
    """
    name = asked.strip().removeprefix("config.")
    entries = all_entries()
    told = {**sections(), COMPARE: "How a comparison is made (configs/compare_*.py)."}
    if name in told:
        return _section(name, told[name], [e for e in entries if e.section == name])
    found = [e for e in entries if e.path == name]
    found = found or [e for e in entries if e.key == name]
    if found:
        return "\n\n".join(map(_describe, found))
    near = difflib.get_close_matches(name, {*told, *(e.path for e in entries)}, 3, 0.8)
    near += sorted(
        {e.path for e in entries if difflib.get_close_matches(name, [e.key], 1, 0.8)}
        - {*near}
    )
    meant = f"Perhaps {' or '.join(near[:4])}? " if near else ""
    raise InputError(
        f"No key and no section {asked!r}. {meant}Sections: {', '.join(told)}; "
        f"--explain=SECTION lists its keys."
    )


def _section(name: str, told: str, entries: list[Entry]) -> str:
    keys: dict[str, list[Entry]] = {}
    for entry in entries:
        keys.setdefault(entry.key, []).append(entry)
    indent = max(map(len, keys)) + 4
    lines = [f"{name}: {told}", "", "Keys [and their defaults]:"]
    for key, meant in keys.items():
        usual = max(meant, key=lambda entry: len(entry.names))
        first = re.split(r"(?<=[.])\s", usual.meaning)[0]
        one = len(meant) == len(usual.defaults) == 1
        default = usual.default if one else "by name"
        lines.append(side_by_side(key, f"{first} [{default}]", indent))
    named = names_in(name)
    lines += ["", "Names:"] if named else []
    lines += [side_by_side(entry, said, 18) for entry, said in named.items()]
    lines += ["", f"--explain={name}.KEY says more of a key."]
    return "\n".join(lines)


def _describe(entry: Entry) -> str:
    rows = {
        "type": entry.type,
        "choices": ", ".join(entry.choices),
        "default": entry.default,
        "of": ", ".join(entry.names),
        "meaning": entry.meaning,
        "changing": "" if entry.marks is None else marks_words(entry.marks),
        "written": f"--config.{entry.path}=VALUE",
    }
    if entry.section == COMPARE:
        rows["written"] = f"--config.{entry.path}=VALUE, of --mode=compare"
    lines = [side_by_side(name, said, INDENT) for name, said in rows.items() if said]
    return "\n".join([entry.path, *lines])
