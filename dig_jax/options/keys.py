"""The keys of a configuration: type, default, meaning, marks, and their checks.

A section of a configuration is a frozen dataclass of `dig_jax/options/`, where a key
is one line: `log_every: PositiveInt = harmless(100, "Steps between two lines.")`. Where
a section's keys depend on a name (backbone, sde, data), they are the keywords of the
constructor that the name stands for: its signature has their types and defaults, its
docstring their meanings, and a mark stands in the annotation, as in `unroll:
Rounding[NonNegativeInt] = 0`.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache, partial
from typing import (
    Annotated,
    Any,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
)

import pydantic

from dig_jax.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True)
class Marks:
    """What another value of a key changes.

    Attributes:
        free: A run goes on with it: its parameters mean the same, and the steps that it
            has taken are the same.
        bits: What a training step computes, be it in rounding alone.
        images: The images that the same parameters draw, be it in rounding alone.
        known: Of images, only those that are drawn around known pixels. Their records
            name the key, those of others do not.
    """

    free: bool
    bits: bool
    images: bool
    known: bool = False


NETWORK = Marks(free=False, bits=True, images=True)
"""What a run is; a constructor's keywords have these marks, if they say no others."""
LEARNING = Marks(free=False, bits=True, images=False)
"""How its parameters are found."""
ROUNDING = Marks(free=True, bits=True, images=True)
"""The order that the same numbers are added up in."""
ROUNDING_STEP = Marks(free=True, bits=True, images=False)
"""The same, in a training step alone."""
DRAWING = Marks(free=True, bits=False, images=True)
"""How images are drawn."""
INPAINTING = Marks(free=True, bits=False, images=True, known=True)
"""How unknown pixels are drawn."""
HARMLESS = Marks(free=True, bits=False, images=False)
"""What is read, written, measured, when and how much of it."""

Rounding: TypeAlias = Annotated[T, ROUNDING]
"""The type of a constructor's keyword that has the marks ROUNDING."""


class Key(NamedTuple):
    """One key of a section.

    Attributes:
        type: Its type, as annotated.
        default: `dataclasses.MISSING` where it must be given.
        meaning: As its field says, or the constructor's docstring.
        marks: What another value changes.
    """

    type: Any
    default: Any
    meaning: str
    marks: Marks

    @property
    def has_default(self) -> bool:
        """Whether it may be left out."""
        return self.default is not MISSING


def keys_of(constructor: Callable[..., Any]) -> dict[str, Key]:
    """The keys that a section's dataclass, or a constructor in a table, takes."""
    if is_dataclass(constructor):
        return {
            f.name: Key(f.type, f.default, f.metadata["meaning"], f.metadata["marks"])
            for f in fields(constructor)
            if "marks" in f.metadata
        }
    meanings = documented(constructor)
    return {
        name: Key(
            Any if keyword.annotation is keyword.empty else keyword.annotation,
            MISSING if keyword.default is keyword.empty else keyword.default,
            meanings.get(name, ""),
            next(
                (a for a in get_args(keyword.annotation) if isinstance(a, Marks)),
                NETWORK,
            ),
        )
        for name, keyword in _parameters(constructor).items()
    }


def documented(described: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each keyword, under Args: or Attributes:."""
    doc = inspect.getdoc(described) or ""
    block = re.split(r"^(?:Args|Attributes):$", doc, maxsplit=1, flags=re.M)[1:]
    listed = re.split(r"^\S", "".join(block), maxsplit=1, flags=re.M)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", listed, re.M)
    return {name: " ".join(said.split()) for name, said in found}


def _parameters(constructor: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(constructor, eval_str=True).parameters


def _key(marks: Marks, default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning, "marks": marks})


# Fields of a section's dataclass, by their marks: of a default and a meaning.
network = partial(_key, NETWORK)
learning = partial(_key, LEARNING)
rounding_step = partial(_key, ROUNDING_STEP)
drawing = partial(_key, DRAWING)
inpainting = partial(_key, INPAINTING)
harmless = partial(_key, HARMLESS)


def takes_fields_of(
    options: Callable[P, T],
) -> Callable[[Callable[[T], R]], Callable[P, R]]:
    """Decorate a function of a frozen dataclass to take its fields as keywords.

    So constructors share the keywords that their dataclasses inherit. The function's
    signature is the dataclass's, and so are its keys; its docstring gets what the
    dataclass and those that it inherits from say of their attributes.
    """
    described = "".join(
        (inspect.getdoc(c) or "").partition("Attributes:")[2].partition("\n\n")[0]
        for c in reversed(getattr(options, "__mro__", ()))
        if is_dataclass(c)
    )

    def decorate(function: Callable[[T], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def construct(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(options(*args, **kwargs))

        signature = inspect.signature(options)
        returned = inspect.signature(function).return_annotation
        made = signature.replace(return_annotation=returned)
        story, heading, raised = (inspect.getdoc(function) or "").partition("Raises:")
        construct.__doc__ = f"{story}Args:{described}\n\n{heading}{raised}"
        construct.__signature__ = made  # pyright: ignore[reportAttributeAccessIssue]
        return construct

    return decorate


def check_keywords(
    name: str,
    function: Callable[..., Any],
    section: Mapping[str, Any],
    others: Collection[str] = (),
) -> dict[str, Any]:
    """All keywords of a constructor, as a section and its own defaults have them.

    Args:
        name: The section's name, for messages.
        function: The constructor, whose keywords are annotated with types.
        section: Keywords from the configuration.
        others: Keywords of it that are no keys of the section.

    Raises:
        InputError: As for `call_with_section`.
    """
    keyed = _keywords_class(function, tuple(others))
    return vars(call_with_section(name, keyed, section)).copy()


@cache
def _keywords_class(function: Callable[..., Any], others: tuple[str, ...]) -> type:
    """A dataclass of a constructor's keywords."""
    keys = keys_of(function)
    return make_dataclass(
        "Keywords",
        [
            (name, key.type, field(default=key.default))
            for name, key in keys.items()
            if name not in others
        ],
        kw_only=True,
    )


def call_with_section(
    name: str,
    function: Callable[..., T],
    section: Mapping[str, Any],
    **more: Any,
) -> T:
    """Call a constructor with a section's keys, checked against its signature.

    Args:
        name: The section's name, for messages.
        function: A function or dataclass whose keywords are annotated with types.
        section: Keywords from the configuration.
        **more: Keywords that do not come from the configuration.

    Raises:
        InputError: An unknown key, a missing one, or a value of a wrong type or range.
    """
    keywords = inspect.signature(function).parameters
    check_known(name, section, set(keywords) - set(more))
    for key in section:
        if isinstance(section[key], float) and not math.isfinite(section[key]):
            raise InputError(f"config.{name}.{key} must be finite, got {section[key]}.")
    try:
        if inspect.isclass(function):
            return _adapter(function).validate_python({**section, **more})
        return pydantic.validate_call(function)(**section, **more)
    except pydantic.ValidationError as error:
        raise InputError(_describe(name, error, section, keys_of(function))) from None


@cache
def _adapter(checked: type) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(checked)


def check_known(name: str, section: Mapping[str, Any], keys: Collection[str]) -> None:
    """Raise InputError for a key of a section that is none of those."""
    for key in section:
        if key not in keys:
            raise InputError(
                f"Unknown key config.{name}.{key}. Available: "
                f"{', '.join(sorted(keys))}."
            )


def _describe(
    name: str,
    error: pydantic.ValidationError,
    section: Mapping[str, Any],
    keys: Mapping[str, Key],
) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # raised by the constructor itself
            problems.append(str(cause))
            continue
        # Without the names that pydantic gives to a union's kinds of values.
        leaf, *inner = (p for p in problem["loc"] if not set("-[") & set(str(p)))
        key, known = ".".join(map(str, (leaf, *inner))), keys.get(str(leaf))
        count = _count_values(known)
        if count and problem["type"] in ("missing", "too_long", "tuple_type"):
            such = f", such as {known.default!r}" if known and known.has_default else ""
            problems.append(
                f"config.{name}.{leaf} must be {count} values{such}, got "
                f"{section[str(leaf)]!r}.{meaning_of(known)}"
            )
        elif "missing" in problem["type"] and inner:
            given = section.get(str(leaf))
            problems.append(f"config.{name}.{leaf} needs more values, got {given!r}.")
        elif "missing" in problem["type"]:
            problems.append(f"config.{name}.{key} is missing.")
        else:
            message = problem["msg"].replace("Input should be", "must be", 1)
            problems.append(
                f"config.{name}.{key} {message}, got {problem['input']!r}."
                f"{meaning_of(known)}"
            )
    return " ".join(dict.fromkeys(problems))


def _count_values(key: Key | None) -> int:
    """How many values a key has, where they are several and always as many; else 0."""
    kinds = get_args(key.type) if key and get_origin(key.type) is tuple else ()
    return 0 if ... in kinds else len(kinds)


def meaning_of(key: Key | None) -> str:
    """What a key is, as a sentence that ends a message; "" where nobody says it."""
    return f" It is: {key.meaning}" if key is not None and key.meaning else ""
