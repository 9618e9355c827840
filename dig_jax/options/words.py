"""Several words as the value of a key."""

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator


def split_words(value: Any) -> Any:
    """Text with commas, as a command line has it, as several words."""
    if not isinstance(value, str):
        return value
    return tuple(word for word in map(str.strip, value.split(",")) if word)


Words: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(split_words)]
"""A tuple of words, or text with commas between them."""
