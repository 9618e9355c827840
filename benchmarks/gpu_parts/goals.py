"""The project's goals on a GPU, from what the parts have found."""

from collections.abc import Iterator
from typing import Any

STENCIL, UVIT, DIT = "DiG-parallel stencil", "U-ViT/2 auto", "DiT/2"
TORCH_UVIT = "torch.compile, U-ViT"
TORCH_DIG = "torch.compile, DiG-parallel, SAGEConv"
# Of one H100 80GB on 2026-11-27, before anything was done about it.
BEFORE = {
    f"{STENCIL}, of the rate": 0.34,
    f"{UVIT}, of the rate": 0.36,
    f"{DIT}, of the rate": 0.37,
    "U-ViT over torch.compile, training": 0.89,
    "U-ViT over torch.compile, forward": 0.77,
    "DiG-parallel over SAGEConv, training": 1.68,
    "stencil over none": 1.07,
    "DiG-parallel over U-ViT at equal work": 0.94,
    "first step, first start": "",
    "first step, second start": "",
}
GOALS = {
    f"{STENCIL}, of the rate": "at least 0.50",
    f"{UVIT}, of the rate": "at least 0.50",
    f"{DIT}, of the rate": "at least 0.50",
    "U-ViT over torch.compile, training": "at least 1.10",
    "U-ViT over torch.compile, forward": "at least 1.10",
    "DiG-parallel over SAGEConv, training": "at least 2.50",
    "stencil over none": "at most 1.04",
    "DiG-parallel over U-ViT at equal work": "at least 1.20",
    "first step, first start": "at most 60 s",
    "first step, second start": "at most 20 s",
}


def goals(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each goal that something was measured of."""
    return [
        {"goal": name, "asked": GOALS[name], "before": BEFORE[name], "now": value}
        for name, value in measured(parts)
        if value is not None
    ]


def measured(parts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values by name, None where one is not there."""

    def cell(part: str, table: str, name: str, column: str) -> Any:
        rows = parts.get(part, {}).get("tables", {}).get(table, [])
        found = [row for row in rows if name in (row.get("network"), row.get("what"))]
        return found[0].get(column) if found else None

    def training(name: str, column: str) -> Any:
        return cell("tables", "training", name, column)

    for name in (STENCIL, UVIT, DIT):
        yield f"{name}, of the rate", training(name, "of the rate")
    speed = "images/s"
    yield (
        "U-ViT over torch.compile, training",
        ratio(training(UVIT, speed), cell("torch_steps", "torch", TORCH_UVIT, speed)),
    )
    yield (
        "U-ViT over torch.compile, forward",
        ratio(
            cell("tables", "forward", UVIT, speed),
            cell("torch_steps", "torch", TORCH_UVIT, "forward, images/s"),
        ),
    )
    yield (
        "DiG-parallel over SAGEConv, training",
        ratio(training(STENCIL, speed), cell("torch_steps", "torch", TORCH_DIG, speed)),
    )
    yield "stencil over none", training(STENCIL, "over none")
    # Images a second times an image's multiply-accumulates: as the shares are.
    yield (
        "DiG-parallel over U-ViT at equal work",
        ratio(training(STENCIL, "of the rate"), training(UVIT, "of the rate")),
    )
    for which in ("first", "second"):
        name = f"first step, {which} start"
        yield name, cell("starting", "starting", name, "seconds")


def ratio(a: Any, b: Any) -> float | None:
    """a / b, where both were measured."""
    return round(a / b, 3) if a and b else None
