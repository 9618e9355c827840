"""The page of a run: what it is, what it draws, how it learns, what it reached."""

import contextlib
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from dig_jax.errors import InputError
from dig_jax.evaluation.records import direction
from dig_jax.files.lock import is_held
from dig_jax.files.paths import CHECKPOINTS, AnyPath, is_remote
from dig_jax.report.configuration import complete, configuration, describe_data
from dig_jax.report.curves import (
    curve,
    diversity_section,
    loss_section,
    optimization_section,
)
from dig_jax.report.html import Markup, image, join, paragraph
from dig_jax.report.page import Missing, Page
from dig_jax.report.pictures import picture
from dig_jax.report.provenance import (
    commands_section,
    goodput_section,
    mebibytes,
    memory_of,
    memory_section,
    versions_section,
)
from dig_jax.report.scores import (
    ARROWS,
    headline,
    readable_records,
    scores_section,
)
from dig_jax.reporting.goodput import read_goodput
from dig_jax.reporting.metric_writer import HELD_OUT_LOSS, read_metrics
from dig_jax.storage.meta_file import finished_steps, read_meta_file
from dig_jax.storage.run_config import restore_run_config
from dig_jax.storage.workdir_lock import LOCK_FILE

MAX_PICTURES = 24
"""Along training: of more, the first, the last and some between."""


def run_page(workdir: AnyPath) -> Page:
    """The page of the run in a workdir, as far as it has come.

    Raises:
        InputError: Its configuration is damaged, or of another version.
    """
    values = complete(restore_run_config(workdir, write=False))
    metrics, records = read_metrics(workdir), readable_records(workdir)
    lines, meta = read_goodput(workdir), newest_meta(workdir)
    num_steps = values.get("training.num_steps") or 0
    step = max([0, *(line["step"] for line in metrics), *_saved_steps(workdir)])
    page = Page(f"{workdir.name or workdir}", describe_run(values, meta))
    page.status, page.state = _status(workdir, step, num_steps, lines)
    page.tiles = _tiles(values, metrics, records, lines, step)
    page.add("samples", "Samples along training", lambda: samples(page, workdir))
    page.add("loss", "Loss", lambda: loss_section(page, metrics))
    if not curve(metrics, f"{HELD_OUT_LOSS}mean")[0]:
        page.left_out.append(("Held-out loss", _no_held_out_loss(values)))
    page.add("scores", "Scores", lambda: scores_section(page, records, metrics))
    norm = values.get("optimizer.max_grad_norm")
    page.add(
        "optimization",
        "Optimization",
        lambda: optimization_section(page, metrics, norm),
    )
    page.add("diversity", "Diversity", lambda: diversity_section(page, metrics))
    page.add("graph", "Graph", lambda: graph_section(workdir))
    page.add("time", "Time", lambda: goodput_section(lines))
    page.add("memory", "Memory", lambda: memory_section(lines))
    page.add("config", "Configuration", lambda: config_section(values))
    page.add("versions", "Provenance", lambda: versions_section(meta))
    page.add(
        "commands",
        "Commands",
        lambda: commands_section(workdir, values, unfinished=step < num_steps),
    )
    return page


def describe_run(values: Mapping[str, Any], meta: Mapping[str, Any] | None) -> str:
    """A run in a line."""
    count = count_parameters(meta) if meta is not None else None
    size = f" with {count / 1e6:.2f} million parameters" if count else ""
    objective = values.get("objective.prediction")
    return (
        f"{values.get('backbone.name')}{size} on {describe_data(values)}; predicts "
        f"{objective}, noise {values.get('sde.name')}, batches of "
        f"{values.get('training.batch_size')}, seed {values.get('seed')}."
    )


def newest_meta(workdir: AnyPath) -> dict[str, Any] | None:
    """What the newest checkpoint that can be read says of itself."""
    for step in reversed(_saved_steps(workdir)):
        with contextlib.suppress(InputError):
            return read_meta_file(workdir / CHECKPOINTS / str(step))
    return None


def count_parameters(meta: Mapping[str, Any]) -> int | None:
    """The parameters of a checkpoint's network; None where it does not say."""
    with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError):
        arrays = [leaf["array"] for leaf in meta["leaves"]["ema"].values()]
        shapes = [re.findall(r"\[([\d,]*)\]", array)[0] for array in arrays]
        return sum(prod(int(n) for n in s.split(",") if n) for s in shapes)
    return None


def _saved_steps(workdir: AnyPath) -> list[int]:
    return finished_steps(workdir / CHECKPOINTS)


def _status(
    workdir: AnyPath, step: int, num_steps: int, lines: list[dict[str, Any]]
) -> tuple[str, str]:
    """How far a run has come, in words and in one."""
    if step >= num_steps:
        return f"done: {step:,} steps", "done"
    far = f"step {step:,} of {num_steps:,}"
    if not is_remote(workdir) and is_held(Path(workdir) / LOCK_FILE):
        return f"in training: {far}, as of this page", "open"
    if lines and lines[-1].get("end") is None:
        return f"{far}; it trains, or was killed", "stopped"
    return f"stopped at {far}", "stopped"


def _no_held_out_loss(values: Mapping[str, Any]) -> str:
    """Why there is none, and how to get it."""
    every = values.get("training.held_out_every")
    if every:
        return f"none was measured yet (training.held_out_every={every})"
    return (
        "training.held_out_every is 0, so that the loss on test images was not "
        "measured: train with --config.training.held_out_every=500, say, where there "
        "are test images; a run that goes on may be given it, too"
    )


def _tiles(
    values: Mapping[str, Any],
    metrics: list[dict[str, Any]],
    records: list[dict[str, Any]],
    lines: list[dict[str, Any]],
    step: int,
) -> list[tuple[str, str, str]]:
    """The figures at the head."""
    tiles = [("Steps", f"{step:,}", f"of {values.get('training.num_steps'):,}")]
    _, losses = curve(metrics, "loss")
    if losses:
        tiles.append(("Loss", f"{losses[-1]:.4f}", f"at first {losses[0]:.4f}"))
    _, held_out = curve(metrics, f"{HELD_OUT_LOSS}mean")
    if held_out:
        tiles.append(("Held-out loss", f"{held_out[-1]:.4f}", "test images"))
    score = headline(records, values.get("training.keep_best") or "")
    if score is not None:
        count = f"{score.num_real:,} " if score.num_real else ""
        real = "" if score.real is None else f"; {count}real images {score.real:.3f}"
        arrow = ARROWS[direction(score)]
        word = f"{arrow} better{real}"
        tiles.append((score.name, f"{score.value:.3f}", word))
    _, rates = curve(metrics, "images_per_second")
    if rates:
        middle = sorted(rates)[len(rates) // 2]
        tiles.append(("Images a second", f"{middle:,.0f}", "median"))
    wall = sum(line["wall_seconds"] for line in lines)
    if wall:
        useful = sum(line["seconds"].get("productive", 0.0) for line in lines)
        tiles.append(("Time", duration(wall), f"{useful / wall:.0%} productive"))
    memory = memory_of(lines)
    if memory:
        name, most = list(memory.items())[-1]
        tiles.append(("Memory", mebibytes(most), f"at most, {name}"))
    return tiles


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def samples(page: Page, workdir: AnyPath) -> Markup:
    """The pictures of samples/, one at a time, chosen by a slider."""
    folder = workdir / "samples"
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"step_(\d{1,18})\.png", path.name)
        if match:
            found[int(match[1])] = path
    steps = sorted(found)
    if not steps:
        raise Missing("samples/ has no picture yet (training.sample_every)")
    count = min(len(steps), MAX_PICTURES)
    places = {round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)}
    for place in sorted(places):
        step = steps[place]
        try:
            source = picture(found[step])
        except InputError as reason:
            page.left_out.append((f"samples/step_{step}.png", str(reason)))
            continue
        told = f"step {step:,}"
        alt = f"Samples at {told}, a grid of drawn images"
        page.frames.append({"src": source, "told": told, "alt": alt})
    if not page.frames:
        raise Missing("no picture in samples/ can be read")
    last = page.frames[-1]
    end = len(page.frames) - 1
    left = ""
    said = (
        "Each picture is drawn from the same noise with the averaged (EMA) parameters "
        "of its step, so each place in the grid can be followed along training."
    )
    if len(steps) > count:
        left = f" {count} of {len(steps)} pictures are shown; all are in samples/."
    shown = image(last["src"], last["alt"]).replace(
        "<img", '<img id="step-picture" class="picture"', 1
    )
    controls = (
        '<div class="controls"><label for="step-slider">Training: '
        f'<output id="step-told" for="step-slider">{last["told"]}</output></label>'
        f'<input type="range" id="step-slider" min="0" max="{end}" value="{end}" '
        'step="1"><button type="button" id="step-play">Play</button>'
        f"{paragraph(said + left, 'note')}</div>"
    )
    on_paper = '<div id="steps-on-paper"></div>'  # a few beside each other
    return Markup(f'<div class="film">{shown}{controls}{on_paper}</div>')


def graph_section(workdir: AnyPath) -> Markup:
    """graph.png."""
    path = workdir / "graph.png"
    if not path.is_file():
        raise Missing("there is no graph.png (the backbone has no graph)")
    said = "What is passed messages along, over a training image."
    alt = "The graph of the backbone drawn over a training image"
    return join([paragraph(said), image(picture(path), alt, "picture wide")])


def config_section(values: Mapping[str, Any]) -> Markup:
    """All keys."""
    return Markup(f'<div id="configuration">{configuration(values)}</div>')
