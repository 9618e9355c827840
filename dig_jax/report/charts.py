"""Charts as data: what the page's script draws with Bokeh."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_POINTS = 600
"""Of a curve; of more, means over neighbours are drawn."""


@dataclass
class Chart:
    """One chart.

    Attributes:
        title: What it shows.
        x: What its x axis is, with its unit.
        y: Likewise.
        note: A sentence on how to read it; "" for none.
        log: Whether y is logarithmic; only where all values are above 0.
        zero: Whether the y axis begins at 0.
        categories: The x axis is of these names in place of numbers.
        series: Curves and points (see `add`).
        lines: Horizontal lines, each with its value `y` and its `name`.
    """

    title: str
    x: str
    y: str
    note: str = ""
    log: bool = False
    zero: bool = False
    categories: Sequence[str] = ()
    series: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        name: str,
        x: Iterable[Any],
        y: Iterable[float | None],
        *,
        shade: float | None = None,
        low: Iterable[float] = (),
        high: Iterable[float] = (),
        marked: bool = False,
        points_only: bool = False,
        color: int | None = None,
    ) -> None:
        """Add a curve.

        Args:
            name: In the legend.
            x: Numbers, or names of `categories`.
            y: None for a gap.
            shade: From 0 (pale) to 1 (dark), for curves in an order.
            low: Lower end of a band around the curve.
            high: Its upper end.
            marked: With a mark on each point.
            points_only: Without a line between them.
            color: Number of its colour; by default that of its place.
        """
        xs, ys = list(x), [_number(value) for value in y]
        band = [[_number(value) for value in values] for values in (low, high)]
        if len(xs) > MAX_POINTS and not self.categories:
            xs, ys = _thin(xs), _thin(ys)
            band = [_thin(values) for values in band]
        self.series.append(
            {
                "name": name,
                "x": xs if self.categories else [_number(value) for value in xs],
                "y": ys,
                "shade": shade,
                "low": band[0],
                "high": band[1],
                "marked": marked or len(xs) <= 40,
                "pointsOnly": points_only,
                "color": len(self.series) if color is None else color,
            }
        )

    def line(self, name: str, y: float) -> None:
        """Add a horizontal line, as of real images."""
        if math.isfinite(y):
            self.lines.append({"name": name, "y": _number(y)})

    def spec(self) -> dict[str, Any]:
        """What the page's script is given."""
        values = [y for one in self.series for y in one["y"] if y is not None]
        values += [line["y"] for line in self.lines]
        return {
            "title": self.title,
            "x": self.x,
            "y": self.y,
            "log": self.log and bool(values) and min(values) > 0,
            "zero": self.zero,
            "categories": list(self.categories),
            "series": self.series,
            "lines": self.lines,
        }

    def describe(self) -> str:
        """In words, for those who do not see it."""
        parts = [f"{self.title}: {self.y} over {self.x}."]
        for one in self.series[:12]:
            known = [
                (x, y) for x, y in zip(one["x"], one["y"], strict=True) if y is not None
            ]
            if known:
                (x0, y0), (x1, y1) = known[0], known[-1]
                parts.append(f"{one['name']}: {y0:.4g} at {x0}, {y1:.4g} at {x1}.")
        parts += [f"{line['name']}: {line['y']:.4g}." for line in self.lines]
        return " ".join(parts)


def _number(value: Any) -> float | int | None:
    """To five digits; None for what is none, as JSON has no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.5g}") if isinstance(value, float) else value


def _thin(values: list[Any]) -> list[Any]:
    """Means over equal stretches, so that no more than MAX_POINTS are left."""
    if not values:
        return []
    numbers = np.array(values, np.float64)
    parts = np.array_split(numbers, MAX_POINTS)
    known = [part[np.isfinite(part)] for part in parts]
    return [_number(float(part.mean())) if len(part) else None for part in known]
