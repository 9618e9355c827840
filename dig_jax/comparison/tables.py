"""Tables of a page in Markdown: ranked rows, the best in bold, arrows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dig_jax.files.shown import in_markdown

ARROWS = {"up": " ↑", "down": " ↓", None: ""}


RATE = "optimizer.learning_rate"


def differing(record: Mapping[str, Any]) -> list[str]:
    """The keys in which variants differ, each once."""
    keys = {key for variant in record["variants"] for key in variant["differs"]}
    # Older records do not say what a search has chosen among what differs.
    if len({variant.get("learning_rate") for variant in record["variants"]}) > 1:
        keys.add(RATE)
    return sorted(keys)


class Bold(str):
    """Text of a cell that is shown in bold."""


def table(head: Iterable[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; columns after the first `left` are right-aligned."""
    head = list(head)
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    shown = [[shown_cell(cell) for cell in row] for row in (head, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (shown[0], rule, *shown[1:]))


def shown_cell(cell: str) -> str:
    """Anybody's text in a place of a page, bold where it is `Bold`."""
    text = in_markdown(cell)
    return f"**{text}**" if isinstance(cell, Bold) and text else text


def score_column(values_of: Sequence[Sequence[float]], better: str | None) -> list[str]:
    """A column of means ± deviations, the best one in bold; "" of no values.

    Args:
        values_of: Of each row its values, one a seed.
        better: "up" or "down"; None where nothing is best.
    """
    texts = [spread(values) for values in values_of]
    means = [float(np.mean(values)) for values in values_of if len(values)]
    if better is None or len(means) < 2:
        return texts
    best = max(means) if better == "up" else min(means)
    return [
        Bold(text) if len(values) and float(np.mean(values)) == best else text
        for text, values in zip(texts, values_of, strict=True)
    ]


def spread(values: Iterable[float]) -> str:
    """Mean ± standard deviation, which one value has none of; "" of no values."""
    values = list(values)
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"


def bullets(explained: dict[str, str]) -> str:
    """A list that says of each word, in bold, what it means."""
    return "\n".join(
        f"- **{in_markdown(word)}**: {meaning}" for word, meaning in explained.items()
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    shown = [in_markdown(name) for name in names]
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
