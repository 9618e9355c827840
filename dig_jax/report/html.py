"""HTML from text that may be anybody's: everything is escaped that is no Markup."""

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from dig_jax.files.shown import printable


class Markup(str):
    """Text that is HTML already."""


def markup(text: object) -> Markup:
    """Text as HTML: escaped, and characters that are not visible spelled out."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(printable(text)))


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """Parts, each escaped unless it is Markup."""
    return Markup(between.join(map(markup, parts)))


def element(tag: str, content: object = "", **attributes: object) -> Markup:
    """An element; `class_` is the attribute `class`, `aria_label` is `aria-label`."""
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{markup(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{said}>{markup(content)}</{tag}>")


def paragraph(text: object, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", text, class_=class_)


def code(text: object) -> Markup:
    """Text as in a program."""
    return element("code", text)


def image(source: str, alt: str, class_: str | None = None) -> Markup:
    """A picture with its address inside."""
    said = f' class="{class_}"' if class_ else ""
    return Markup(f'<img src="{markup(source)}" alt="{markup(alt)}"{said}>')


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    text_columns: int = 1,
    row_attributes: Sequence[str] = (),
    whole: bool = False,
) -> Markup:
    """A table with headers that say what they head.

    Args:
        head: Of the columns.
        rows: Cells; the first of each is the row's header.
        caption: What it is, for those who do not see it.
        text_columns: So many columns from the left are text; the others are numbers.
        row_attributes: HTML attributes of each row, if any.
        whole: Of full height, and no wider than the page as long as its cells' lines
            can be broken; others scroll.
    """
    places = [""] * text_columns + [' class="number"'] * (len(head) - text_columns)
    top = "".join(
        f'<th scope="col"{place}>{markup(cell)}</th>'
        for cell, place in zip(head, places, strict=True)
    )
    body = []
    for index, row in enumerate(rows):
        first, *others = row
        cells = [f'<th scope="row">{markup(first)}</th>']
        cells += [
            f"<td{place}>{markup(cell)}</td>"
            for cell, place in zip(others, places[1:], strict=True)
        ]
        said = f" {row_attributes[index]}" if row_attributes else ""
        body.append(f"<tr{said}>{''.join(cells)}</tr>")
    return Markup(
        f'<div class="scrolled{" whole" if whole else ""}" tabindex="0" '
        f'role="region" aria-label="'
        f'{markup(caption)}"><table><caption>{markup(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """A list of names and what they are."""
    rows = [f"<dt>{markup(name)}</dt><dd>{markup(value)}</dd>" for name, value in pairs]
    return Markup(f'<dl class="facts">{"".join(rows)}</dl>')


def command(said: str, line: str) -> Markup:
    """A command that can be copied, and what it does."""
    return Markup(
        f'<div class="command"><p>{markup(said)}</p><div class="line">'
        f'<pre tabindex="0"><code>{markup(line)}</code></pre>'
        '<button type="button" class="copy">Copy</button></div></div>'
    )


def details(summary: object, content: object) -> Markup:
    """What is folded until it is asked for."""
    return Markup(
        f"<details><summary>{markup(summary)}</summary>{markup(content)}</details>"
    )


def data_script(name: str, value: Any) -> Markup:
    """Data for the page's own script, which no text in it can leave."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')
