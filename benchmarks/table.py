"""Tables in Markdown; without jax, for scripts that start others which have it."""

from typing import Any


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as a table in Markdown; a cell is empty where a row lacks the column."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        cells = (str(row.get(key, "")) for key in columns)
        print("| " + " | ".join(cells) + " |")
