"""Files that are written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; the file takes its name when the block has ended.

    So a reader never sees half of it, and what was there stays if writing fails.
    """
    unfinished = path.with_name(f"{path.stem}.tmp{path.suffix}")
    yield unfinished
    unfinished.replace(path)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text in UTF-8, or bytes."""
    data = content.encode() if isinstance(content, str) else content
    with written_whole(path) as unfinished:
        unfinished.write_bytes(data)
