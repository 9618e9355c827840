"""Text of files, which may be anybody's, as a terminal or a Markdown page may have it.

A name or a message in a file may hold terminal escapes, line ends, or HTML: shown as it
is, it could recolour a terminal, forge a line, or put a script into a page.
"""

import logging
import re
import sys

LINE_END = "\n"
_MARKDOWN = re.compile(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def printable(text: object, *, keep: str = "") -> str:
    r"""Text with what is no visible character spelled out, as in \x1b.

    Args:
        text: Anything; its `str` is meant.
        keep: Characters that stay, such as `LINE_END`.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode()
        for c in str(text).encode(errors="backslashreplace").decode()
    )


def say(text: object, *, error: bool = False) -> None:
    """Print a text's lines at once, with what is no visible character spelled out.

    Args:
        text: One line or several.
        error: To stderr instead of stdout.
    """
    stream = sys.stderr if error else sys.stdout
    print(printable(text, keep=LINE_END), file=stream, flush=True)


def spell_out_logs() -> None:
    """Have every line that dig_jax logs from now on spelled out, as `say` does."""
    logging.getLogger("absl").addFilter(_spell_out)


def _spell_out(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage(), keep=LINE_END), None
    return True


def in_markdown(text: object) -> str:
    """Text for a place in a Markdown page, where it is neither markup nor HTML."""
    escaped = _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(text))
    return "".join(_HTML.get(c, c) for c in escaped)
