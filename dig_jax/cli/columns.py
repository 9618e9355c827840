"""Names and what they mean, side by side, as a terminal shows them."""

import textwrap

WIDTH = 88


def side_by_side(name: str, text: str, indent: int) -> str:
    """A name, and its text from a column on; one that is too long pushes it aside."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {name}  ".ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
