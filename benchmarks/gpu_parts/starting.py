"""How long it takes from a command to the first step, and what the quickstart takes."""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_parts.commands import Ran, run_command
from gpu_parts.report import Report

ROOT = Path(__file__).parents[2]
MAIN = ["-m", "dig_jax.main"]
QUICKSTART = {"training.evaluate_every": 0, "training.keep_best": ""}


def run(options: argparse.Namespace, report: Report) -> None:
    """First and second start with one cache, the quickstart's commands, the state."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        # As a user who sets nothing, whose cache folder is empty at first.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": None,
            "XDG_CACHE_HOME": str(folder / "home"),
        }
        for which in ("first", "second"):
            first_step(which, options, report, folder, cache)
        quickstart(options, report, folder, cache)
    # Last, because this process then holds most of the card's memory.
    time_create_state(options, report)


def first_step(
    which: str,
    options: argparse.Namespace,
    report: Report,
    folder: Path,
    cache: Mapping[str, str | None],
) -> None:
    """From the command to the first logged step of configs/cifar10.py."""
    workdir = folder / which
    flags = flags_of(
        {
            "data.name": "synthetic",
            "training.batch_size": options.batch,
            "training.log_every": 1,
            "backbone.depth": options.depth or 12,
            "backbone.width": options.width or 512,
            "mesh.data": 1,
        }
    )
    config = f"--config={ROOT / 'configs' / 'cifar10.py'}"
    ran = run_command(
        [*MAIN, config, f"--workdir={workdir}", *flags],
        limit=report.seconds_left - 5,
        environment=cache,
        until=lambda: last_step(workdir) >= 1,
    )
    came = ran.code is None
    row = {"what": f"first step, {which} start", **seconds_row(ran, came)}
    report.add("starting", row | parts_of(workdir))
    if not came:
        report.note(f"{which} start:\n{ran.ending}")
    else:
        said = "\n".join(f"{second:7.2f} s  {line}" for second, line in ran.lines)
        report.note(f"{which} start said:\n{said[-3000:]}")


def seconds_row(ran: Ran, came: bool) -> dict[str, Any]:
    """The time, or that it was not enough."""
    if came:
        return {"seconds": round(ran.seconds, 1)}
    if not ran.in_time:
        return {"seconds": f"more than {ran.seconds:.0f}"}
    return {"seconds": f"ended with {ran.code} after {ran.seconds:.0f}"}


def time_create_state(options: argparse.Namespace, report: Report) -> None:
    """Making the first state alone, without a cache: traced, compiled, run."""
    import jax

    from dig_jax.devices.sharding import MeshOptions, create_mesh
    from dig_jax.training.programs import create_programs
    from gpu_parts.networks import STENCIL, experiment_of
    from gpu_parts.tables import sizes_of

    jax.config.update("jax_enable_compilation_cache", False)
    experiment = experiment_of(STENCIL, sizes_of(options))
    mesh = create_mesh(MeshOptions(1, 1), jax.devices()[:1])
    programs = create_programs(experiment, mesh, batch_size=options.batch)
    for which in ("first", "second"):
        start = time.perf_counter()
        jax.block_until_ready(programs.create_state())
        seconds = round(time.perf_counter() - start, 2)
        report.add("starting", {"what": f"create_state, {which}", "seconds": seconds})


def quickstart(
    options: argparse.Namespace,
    report: Report,
    folder: Path,
    cache: Mapping[str, str | None],
) -> None:
    """Digits trained for some steps, drawn and scored, each command's time."""
    workdir, steps = folder / "digits", options.digits_steps
    config = f"--config={ROOT / 'configs' / 'digits.py'}"
    training = {"training.num_steps": steps, "data.data_dir": folder / "data"}
    commands = {
        f"digits, {steps} steps": [config, *flags_of(QUICKSTART | training)],
        "digits, drawing": ["--mode=sample"],
        "digits, scoring": ["--mode=evaluate"],
    }
    for what, flags in commands.items():
        ran = run_command(
            [*MAIN, f"--workdir={workdir}", *flags],
            limit=report.seconds_left - 5,
            environment=cache,
        )
        row = {"what": what, **seconds_row(ran, ran.code == 0)}
        report.add("starting", row | (parts_of(workdir) if config in flags else {}))
        if ran.code != 0:
            report.note(f"{what}:\n{ran.ending}")
            return


def flags_of(values: dict[str, Any]) -> list[str]:
    """Overrides of a configuration."""
    return [f"--config.{key}={value}" for key, value in values.items()]


def last_step(workdir: Path) -> int:
    """The newest step that is logged; a line that is being written does not count."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return max((json.loads(line).get("step", 0) for line in whole if line), default=0)


def parts_of(workdir: Path) -> dict[str, float]:
    """Where a start's time went, by its own account: whole seconds only matter."""
    path = workdir / "goodput.jsonl"
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    spent = json.loads(lines[-1])["seconds"] if lines else {}
    return {f"{kind}, s": round(s, 1) for kind, s in spent.items() if s >= 0.05}
