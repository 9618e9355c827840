"""What parts have found so far, on disk at any time."""

import json
import os
import time
from pathlib import Path
from typing import Any


def write_whole(path: Path, record: Any) -> None:
    """Replace a JSON file, so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """A part's file; nothing found where there is none yet."""
    if not path.exists():
        return {"tables": {}, "notes": []}
    return json.loads(path.read_text(encoding="utf-8"))


class Report:
    """Rows and notes of one part; each is on disk when it was added.

    Args:
        path: JSON file that is replaced as a whole.
        seconds: Time that the part has.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._ends = time.monotonic() + seconds
        self._record: dict[str, Any] = {"tables": {}, "notes": []}

    @property
    def seconds_left(self) -> float:
        """Until the part is ended."""
        return self._ends - time.monotonic()

    def add(self, table: str, row: dict[str, Any]) -> None:
        """One more row of a table."""
        self._record["tables"].setdefault(table, []).append(row)
        write_whole(self._path, self._record)

    def note(self, text: str) -> None:
        """Something to be read beside the tables."""
        self._record["notes"].append(text)
        write_whole(self._path, self._record)


def first_line(error: BaseException) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
