"""The curves of metrics.jsonl as charts, each with a word on how to read it."""

from typing import Any

from dig_jax.report.charts import Chart
from dig_jax.report.html import Markup
from dig_jax.report.page import Missing, Page
from dig_jax.reporting.metric_writer import (
    DIVERSITY,
    HELD_OUT_LOSS,
    NOISE_LEVEL_LOSS,
)

Metrics = list[dict[str, Any]]
_MAX_STEPS = 6
"""Curves of feature diversity: of more, the first, the last and some between."""


def curve(metrics: Metrics, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have a finite value of this name."""
    lines = [line for line in metrics if isinstance(line.get(name), int | float)]
    return [line["step"] for line in lines], [line[name] for line in lines]


def loss_section(page: Page, metrics: Metrics) -> Markup:
    """Loss, loss by noise level, and the held-out loss."""
    charts = [loss_chart(metrics)]
    charts += [
        chart
        for prefix, title, note in (
            (
                NOISE_LEVEL_LOSS,
                "Loss by noise level",
                "Noise level 0 is nearly the image, 9 nearly noise. A level that no "
                "longer falls has been learned as far as this network and noise "
                "allow; which ones still fall says where the gains are.",
            ),
            (
                f"{HELD_OUT_LOSS}bin_",
                "Held-out loss by noise level",
                "Of test images that training never sees. Where it rises while the "
                "loss falls, the network begins to learn its images by heart.",
            ),
        )
        if (chart := _by_level(metrics, prefix, title, note)) is not None
    ]
    if not charts[0].series:
        raise Missing("metrics.jsonl has no line with a loss yet")
    return page.charts_of(charts)


def loss_chart(metrics: Metrics) -> Chart:
    """The loss, and that of test images where it is measured."""
    chart = Chart("Loss", "Step", "Loss", log=True)
    steps, values = curve(metrics, "loss")
    if steps:
        chart.add("training images", steps, values)
        chart.note = "Mean of the steps since the line before; it falls, then levels."
    steps, values = curve(metrics, f"{HELD_OUT_LOSS}mean")
    if steps:
        chart.add("held-out images", steps, values, marked=True)
        chart.note += (
            " The held-out loss is of the averaged parameters at evenly spread "
            "times: its height need not be the training loss's, its course matters."
        )
    return chart


def _by_level(metrics: Metrics, prefix: str, title: str, note: str) -> Chart | None:
    names = sorted({n for line in metrics for n in line if n.startswith(prefix)})
    if not names:
        return None
    chart = Chart(title, "Step", "Loss", note, log=True)
    for i, name in enumerate(names):
        number = int(name[len(prefix) :]) if name[len(prefix) :].isdecimal() else i
        shade = i / max(len(names) - 1, 1)
        chart.add(f"level {number}", *curve(metrics, name), shade=shade)
    return chart


def optimization_section(
    page: Page, metrics: Metrics, max_grad_norm: float | None
) -> Markup:
    """Learning rate, gradient norm and images per second."""
    charts = []
    for name, title, y, note in (
        (
            "learning_rate",
            "Learning rate",
            "Learning rate",
            "As the schedule has it: a warm-up, then its course.",
        ),
        (
            "grad_norm",
            "Gradient norm",
            "Norm",
            "Good: it falls and levels out. Spikes together with the loss, or a rise "
            "that does not end, ask for a smaller optimizer.learning_rate or a longer "
            "warm-up.",
        ),
        (
            "images_per_second",
            "Speed",
            "Images per second",
            "Good: level. Dips are other work of the machine, or waiting for data.",
        ),
    ):
        steps, values = curve(metrics, name)
        if not steps:
            continue
        chart = Chart(title, "Step", y, note, log=name == "grad_norm")
        chart.zero = name != "grad_norm"
        chart.add(title, steps, values)
        if name == "grad_norm" and max_grad_norm:
            chart.line("gradients are cut to this norm", max_grad_norm)
        charts.append(chart)
    if not charts:
        raise Missing(
            f"none of the {len(metrics)} lines of metrics.jsonl has learning_rate, "
            "grad_norm or images_per_second (written every training.log_every steps)"
            if metrics
            else "metrics.jsonl has no line yet"
        )
    return page.charts_of(charts)


def diversity_section(page: Page, metrics: Metrics) -> Markup:
    """Feature diversity over the blocks, by step."""
    rows = []
    for line in metrics:
        found = sorted(name for name in line if name.startswith(DIVERSITY))
        if found:
            rows.append((line["step"], [line[name] for name in found]))
    if not rows:
        raise Missing("none was measured (training.diversity_every)")
    count = min(len(rows), _MAX_STEPS)
    places = [round(i * (len(rows) - 1) / max(count - 1, 1)) for i in range(count)]
    chart = Chart(
        "Feature diversity after each block",
        "Block",
        "‖H - 1 h*ᵀ‖",
        "How far the nodes are from all being alike (DiG, Fig. 4). Good: well above 0 "
        "up to the last blocks, and no lower than at the first step. Near 0 the nodes "
        "have become one (oversmoothing), and what the network predicts for them too.",
        zero=True,
    )
    for i, place in enumerate(places):
        step, values = rows[place]
        shade = i / max(count - 1, 1)
        chart.add(f"step {step:,}", list(range(len(values))), values, shade=shade)
    return page.charts_of([chart])
