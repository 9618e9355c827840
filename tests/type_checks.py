"""What checks the types of dig_jax's functions at every call: beartype.

To make the check of a function takes longer than most functions do. Those that another
function defines anew at each of its calls, such as a solver's step, share one.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_known: dict[tuple, Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that jaxtyping made of a signature alone, with checks."""
    if "<locals>" not in function.__qualname__:
        return beartype(function)
    annotations = function.__annotations__
    key = (function.__module__, function.__qualname__, *annotations.items())
    try:
        return _known[key]
    except KeyError:
        return _known.setdefault(key, beartype(function))
    except TypeError:  # an annotation that has no hash
        return beartype(function)
