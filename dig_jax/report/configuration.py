"""A configuration on a page: every key, and what differs from a shipped one."""

import contextlib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dig_jax.config import load_config_file
from dig_jax.errors import InputError
from dig_jax.experiment import complete_config, section_keys
from dig_jax.files.shipped import shipped_configs
from dig_jax.options import SECTIONS
from dig_jax.report.html import Markup, code, join, paragraph, table

OF_A_PLACE = ("data.data_dir", "data.title", "data.class_names")
"""Keys that say where and what data is: they make no configuration another."""


class Shipped(NamedTuple):
    """The shipped configuration that is nearest to a run's.

    Attributes:
        name: As --config takes it.
        values: All of its keys.
        differs: Keys whose values are others, or that it lacks.
    """

    name: str
    values: dict[str, Any]
    differs: tuple[str, ...]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by key, as in training.num_steps; lists as tuples, as files have them."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def complete(values: ConfigDict) -> dict[str, Any]:
    """All keys with their values, those at their defaults too, if that can be said."""
    with contextlib.suppress(InputError, KeyError, TypeError, AttributeError):
        return flatten(complete_config(values).to_dict())
    return flatten(values.to_dict())


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    """Every shipped configuration of a run that needs no variant's name."""
    found = {}
    for name, path in shipped_configs().items():
        with contextlib.suppress(InputError):  # of a comparison, or of tables
            found[name] = complete(load_config_file(str(path)))
    return found


def nearest(values: Mapping[str, Any]) -> Shipped | None:
    """The shipped configuration with the fewest other values.

    None where none is of this data set and backbone.
    """
    found = [
        Shipped(name, theirs, differing(values, theirs))
        for name, theirs in _shipped().items()
        if all(
            theirs.get(key) == values.get(key) for key in ("data.name", "backbone.name")
        )
    ]
    return min(found, key=lambda one: len(one.differs), default=None)


def differing(values: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys in which two configurations differ."""
    return tuple(
        key
        for key in sorted({*values, *theirs} - {*OF_A_PLACE})
        if values.get(key) != theirs.get(key)
    )


def config_flags(values: Mapping[str, Any], shipped: Shipped) -> list[str] | None:
    """Flags that make a run's configuration of a shipped one.

    None where flags cannot, because a key is left out.
    """
    keys = [*shipped.differs]
    if values.get("data.data_dir") != shipped.values.get("data.data_dir"):
        keys.append("data.data_dir")
    if any(values.get(key) is None for key in keys):
        return None
    return [f"--config.{key}={_flag_value(values[key])}" for key in keys]


def _flag_value(value: Any) -> str:
    return repr(value) if isinstance(value, tuple) else str(value)


def configuration(values: Mapping[str, Any]) -> Markup:
    """The table of all keys, with a search field."""
    shipped = nearest(values)
    changed = set(shipped.differs) if shipped else set()
    rows, attributes = [], []
    for key in sorted({*values, *changed}):
        meaning = _meanings().get(key, "")
        default = _shown(shipped.values.get(key)) if shipped and key in changed else ""
        rows.append((code(key), code(_shown(values.get(key))), default, meaning))
        attributes.append('class="changed"' if key in changed else "")
    if shipped is None:
        said = paragraph(
            "No shipped configuration is of this data set and backbone, so none is "
            "compared with."
        )
    else:
        count = len(changed)
        said = paragraph(
            join(
                [
                    "Nearest of the shipped configurations: ",
                    code(shipped.name),
                    f"; {count or 'no'} key{'' if count == 1 else 's'} "
                    f"differ{'s' if count == 1 else ''} from it"
                    f"{', marked below' if count else ''}.",
                ],
                "",
            )
        )
    tools = Markup(
        '<div class="filter"><input type="search" id="config-search" '
        'placeholder="Search keys, values, meanings" aria-label="Search the '
        'configuration"><label><input type="checkbox" id="config-changed"> only what '
        'differs</label><output id="config-told" for="config-search"></output></div>'
    )
    head = ("key", "value", "shipped, where it differs", "meaning")
    shown = table(
        head,
        rows,
        caption="All keys of the configuration",
        text_columns=4,
        row_attributes=attributes,
    )
    return join([said, tools, shown])


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "()"
    return "none" if value is None else str(value) if value != "" else '""'


@cache
def _meanings() -> dict[str, str]:
    """What each key means, where its section says it."""
    return {
        f"{section}.{name}": key.meaning
        for section in SECTIONS
        for name, key in section_keys(section).items()
        if key.meaning
    }


def describe_data(values: Mapping[str, Any]) -> str:
    """The images of a run in a few words."""
    size = values.get("data.image_size")
    rows, cols = size if isinstance(size, tuple) else (size, size)
    channels = values.get("data.channels", 3)
    count = values.get("backbone.num_classes") or 0
    name = values.get("data.title") or values.get("data.name")
    classes = f"conditional on {count} classes" if count else "without classes"
    return f"{name}, {rows}x{cols}x{channels}, {classes}"
