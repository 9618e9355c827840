"""Every key of a configuration with all that is known of it, for people to read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from dig_jax.cli.type_words import type_words, value_words
from dig_jax.experiment import TABLES, section_defaults, section_keys
from dig_jax.metrics import METRICS
from dig_jax.options import SECTIONS
from dig_jax.options.compare import CompareOptions
from dig_jax.options.keys import Key, Marks, documented, keys_of
from dig_jax.solvers import SOLVERS, TIME_GRIDS

COMPARE = "compare"
"""The section that only configurations of comparisons have."""
SEED = "Of the first parameters, the order of the images and all noise of a training."

CHOICES: Mapping[str, tuple[str, ...]] = {
    **{f"{section}.name": tuple(sorted(table)) for section, table in TABLES.items()},
    "sample.solver": tuple(sorted(SOLVERS)),
    "sample.time_grid": ("auto", *sorted(TIME_GRIDS)),
    "evaluation.metrics": tuple(sorted(METRICS)),
}
"""The choices of keys that name entries of tables."""


@dataclass(frozen=True)
class Entry:
    """A key, for the names (of backbones, data sets, SDEs) under which it is the same.

    Attributes:
        section: "" for the seed.
        key: Its name there.
        type: In words.
        defaults: Each default in words, with the names that have it.
        meaning: A sentence or more.
        marks: What another value changes; None of a comparison's keys.
        names: Those that have the key; () where all have it.
    """

    section: str
    key: str
    type: str
    defaults: Mapping[str, tuple[str, ...]]
    meaning: str
    marks: Marks | None
    names: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """As after `--config.`, as in backbone.hops."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def choices(self) -> tuple[str, ...]:
        """Entries of the table that it names one of; () of other keys."""
        return CHOICES.get(self.path, ())

    @property
    def default(self) -> str:
        """In words; where names have their own, with these."""
        if len(self.defaults) == 1:
            return next(iter(self.defaults))
        return "; ".join(f"{d} ({', '.join(n)})" for d, n in self.defaults.items())


def sections() -> dict[str, str]:
    """The sections, each with what its dataclass says of itself."""
    told = {name: _first_line(options) for name, options in SECTIONS.items()}
    told["backbone"] = "The network; all keys but the name are its constructor's."
    told["sde"] = "The forward process; all keys but the name are its constructor's."
    return told


def names_in(section: str) -> dict[str, str]:
    """What the name in a section may be, each with the first line of its docstring."""
    return {name: _first_line(made) for name, made in TABLES.get(section, {}).items()}


def all_entries() -> list[Entry]:
    """Every key of every section, the seed last but for those of comparisons."""
    found = [entry for section in SECTIONS for entry in entries_of(section)]
    seed = Entry(
        "",
        "seed",
        "a whole number from 0 on",
        {"must be given": ()},
        SEED,
        Marks(free=False, bits=True, images=False),
    )
    return [*found, seed, *_comparison_entries()]


def entries_of(section: str) -> list[Entry]:
    """The keys of a section; a key of several meanings has an entry for each."""
    table = TABLES.get(section)
    if table is None:
        return [
            _entry(section, name, key, {value_words(key.default): ()})
            for name, key in keys_of(SECTIONS[section]).items()
        ]
    grouped: dict[tuple, list[tuple[str, str]]] = {}
    keys: dict[tuple, Key] = {}
    for entry in sorted(table):
        defaults = section_defaults(section, {"name": entry})
        for name, key in section_keys(section, entry).items():
            same = (name, type_words(key.type), key.meaning)
            default = value_words(defaults.get(name, MISSING))
            grouped.setdefault(same, []).append((default, entry))
            keys[same] = key
    order = list(keys_of(SECTIONS[section])) + [same[0] for same in grouped]
    found = []
    for same in sorted(grouped, key=lambda same: order.index(same[0])):
        having = grouped[same]
        names = tuple(name for _, name in having) if len(having) < len(table) else ()
        defaults = _by_default(having)
        found.append(_entry(section, same[0], keys[same], defaults, names))
    return found


def marks_words(marks: Marks) -> str:
    """What another value of a key changes, as a sentence."""
    match marks:
        case Marks(bits=True, images=True):
            changes = "what a training step computes, and images"
        case Marks(bits=True):
            changes = "what a training step computes"
        case Marks(images=True, known=True):
            changes = "the images that are drawn around known pixels"
        case Marks(images=True):
            changes = "the images that are drawn"
        case _:
            changes = "nothing that is computed"
    rounding = " in rounding alone" if marks.free and marks.bits else ""
    resumed = "may" if marks.free else "may not"
    return (
        f"A run {resumed} go on with another value, which changes {changes}{rounding}."
    )


def _comparison_entries() -> Iterator[Entry]:
    meanings = documented(CompareOptions)
    for field in fields(CompareOptions):
        default = {value_words(field.default): ()}
        kind = type_words(field.type)
        yield Entry(COMPARE, field.name, kind, default, meanings[field.name], None)


def _entry(
    section: str,
    name: str,
    key: Key,
    defaults: Mapping[str, tuple[str, ...]],
    names: tuple[str, ...] = (),
) -> Entry:
    kind = type_words(key.type)
    return Entry(section, name, kind, defaults, key.meaning, key.marks, names)


def _by_default(having: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    return {
        default: tuple(name for other, name in having if other == default)
        for default, _ in having
    }


def _first_line(described: Callable[..., Any]) -> str:
    return (described.__doc__ or "").strip().partition("\n")[0]
