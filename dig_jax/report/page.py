"""A page: its head, sections and charts, put together into one file."""

import datetime
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dig_jax.errors import InputError
from dig_jax.report.charts import Chart
from dig_jax.report.html import (
    Markup,
    code,
    data_script,
    details,
    element,
    join,
    markup,
    paragraph,
)
from dig_jax.reporting import REPORT

# Nothing from outside, whatever text finds its way into a page.
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; font-src data:; form-action 'none'; base-uri 'none'"
)


class Missing(Exception):
    """A part of a page has nothing to show; says what is not there."""


@dataclass
class Page:
    """What a page shows, in its order.

    Attributes:
        title: Its name.
        line: What it is of, in a line.
        status: How far it has come, in a few words.
        state: Of the status: "done", "open" (it goes on) or "stopped".
        tiles: The figures at its head: name, value, and a word beneath.
        sections: Name, title and content of each.
        charts: What the script draws.
        frames: Pictures that its slider goes through.
        left_out: What is not there, and why.
    """

    title: str
    line: object
    status: str = ""
    state: str = "done"
    tiles: list[tuple[str, str, str]] = field(default_factory=list)
    sections: list[tuple[str, str, Markup]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, title: str, make: Callable[[], Markup]) -> None:
        """Add a section; if it has nothing to show, note why."""
        try:
            self.sections.append((name, title, make()))
        except (Missing, InputError) as reason:
            self.left_out.append((title, str(reason)))

    def chart(self, chart: Chart) -> Markup:
        """A place for a chart."""
        number = len(self.charts)
        self.charts.append(chart.spec())
        note = paragraph(chart.note, "note") if chart.note else Markup("")
        place = element(
            "div",
            class_="plot",
            data_chart=number,
            role="img",
            aria_label=chart.describe(),
        )
        return Markup(
            f'<figure class="chart"><figcaption>{markup(chart.title)}</figcaption>'
            f'{place}<div class="legend" data-legend="{number}"></div>{note}'
            f"{details('The numbers', element('div', data_numbers=number))}</figure>"
        )

    def charts_of(self, charts: list[Chart]) -> Markup:
        """Charts beside each other."""
        return element("div", join(map(self.chart, charts)), class_="charts")

    def to_html(self) -> str:
        """The whole file."""
        made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        if self.left_out:
            rows = [
                element("li", join([element("strong", name), f": {why}"], ""))
                for name, why in self.left_out
            ]
            said = element("ul", join(rows), class_="left-out")
            self.sections.append(("left-out", "Left out", said))
        links = join(
            element("a", title, href=f"#{name}") for name, title, _ in self.sections
        )
        body = join(
            Markup(
                f'<section id="{name}" aria-labelledby="{name}-title">'
                f'<h2 id="{name}-title">{markup(title)}</h2>{content}</section>'
            )
            for name, title, content in self.sections
        )
        filled = {
            "TITLE": markup(self.title),
            "POLICY": markup(POLICY),
            "STYLE": read_asset("page.css"),
            "LINE": markup(self.line),
            "STATUS": element("p", self.status, class_=f"status {self.state}"),
            "TILES": self._tiles(),
            "LINKS": links,
            "BODY": body,
            "MADE": join(["Written ", made, " by dig_jax. ", code(REPORT)], ""),
            "DATA": join(
                [data_script("charts", self.charts), data_script("frames", self.frames)]
            ),
            "BOKEH": bokeh_script() if self.charts else "",
            "SCRIPT": read_asset("page.js"),
        }
        # Parts are put in one after the other: none is searched for another's mark.
        text = []
        for part in read_asset("page.html").split("{{"):
            mark, end, rest = part.partition("}}")
            text.append(filled[mark] + rest if end else part)
        return "".join(text)

    def _tiles(self) -> Markup:
        tiles = join(
            element(
                "div",
                join(
                    [
                        element("dt", name),
                        element("dd", join([value, element("small", word)], " ")),
                    ]
                ),
            )
            for name, value, word in self.tiles
        )
        return element("dl", tiles, class_="tiles") if self.tiles else Markup("")


@cache
def read_asset(name: str) -> str:
    """One of the files beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def bokeh_script() -> str:
    """Bokeh's scripts, as they lie in its package, which need not be imported.

    Raises:
        InputError: It is not installed.
    """
    found = importlib.util.find_spec("bokeh")
    if found is None or found.origin is None:
        raise InputError("Charts of a report need Bokeh: pip install bokeh")
    folder = Path(found.origin).parent / "server" / "static" / "js"
    names = ("bokeh.min.js", "bokeh-api.min.js")
    texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    # Within a page's script element, its end must not be spelled.
    return "\n".join(texts).replace("</script", r"<\/script")
