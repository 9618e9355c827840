"""Types of keys in words: what a value may be."""

from collections.abc import Iterable
from dataclasses import MISSING
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "None",
    Any: "any value",
}
# The names that annotated_types give their limits, and where a number stands then.
LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def type_words(annotation: Any) -> str:
    """What a value of a type is, as in "a whole number above 0, or None"."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = "".join(_limits(parts[1:]))
        return type_words(parts[0]) + (f" {limits}" if limits else "")
    if origin is Literal:
        return f"one of {', '.join(map(value_words, parts))}"
    if origin in (Union, UnionType):
        return ", or ".join(map(type_words, parts))
    if origin is tuple:
        number = "several values" if ... in parts else f"{len(parts)} values"
        kinds = dict.fromkeys(type_words(part) for part in parts if part is not ...)
        return f"{number}, each {' or '.join(kinds)}"
    return PLAIN[annotation]


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values that a type lists, as they are written on a command line."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return tuple(str(part) for part in parts)
    if origin is Annotated:
        return choices_of(parts[0])
    if origin in (Union, UnionType, tuple):
        return tuple(choice for part in parts for choice in choices_of(part))
    return ("true", "false") if annotation is bool else ()


def value_words(value: Any) -> str:
    """A value as a configuration has it."""
    return "must be given" if value is MISSING else repr(value)


def _limits(metadata: Iterable[Any]) -> Iterable[str]:
    """The limits of a number in words, from what stands in an Annotated type."""
    found: dict[str, Any] = {}
    for item in metadata:
        for limit in (item, *getattr(item, "metadata", ())):
            found |= {
                name: value
                for name in LIMITS
                if (value := getattr(limit, name, None)) is not None
            }
    words = ", ".join(f"{LIMITS[name]} {value}" for name, value in found.items())
    return [words + " on" if set(found) == {"ge"} else words] if found else []
