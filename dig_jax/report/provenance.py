"""Where a run's time and memory went, what it was made with, and how to go on."""

import shlex
from collections.abc import Mapping
from typing import Any

from dig_jax.files.paths import AnyPath
from dig_jax.report.configuration import config_flags, nearest
from dig_jax.report.html import (
    Markup,
    command,
    details,
    element,
    facts,
    join,
    paragraph,
    table,
)
from dig_jax.report.page import Missing
from dig_jax.reporting.goodput import KINDS

RUN = "python -m dig_jax.main"
_STEPS = "training.num_steps"
_PLACES = {"host": "of this computer", "device": "of a device"}


def goodput_section(lines: list[dict[str, Any]]) -> Markup:
    """Seconds by kind, over all starts."""
    if not lines:
        raise Missing("goodput.jsonl has no line yet")
    wall = sum(line["wall_seconds"] for line in lines)
    rows = []
    for kind, name in KINDS.items():
        seconds = sum(line["seconds"].get(kind, 0.0) for line in lines)
        if seconds >= 0.05:
            rows.append((name, f"{seconds:,.1f}", f"{seconds / max(wall, 1e-9):.1%}"))
    rows.append(("all", f"{wall:,.1f}", "100.0%"))
    shown = table(
        ("kind of work", "seconds", "share"), rows, caption="Where the time went"
    )
    parts: list[object] = [
        paragraph(
            f"{len(lines)} start{'s' if len(lines) > 1 else ''}. Good: most of it "
            "productive, that is, spent in steps."
        ),
        shown,
    ]
    if len(lines) > 1:
        starts = [
            (
                str(line.get("start", i + 1)),
                f"{line.get('first_step', 0):,}",
                f"{line['last_step']:,}",
                f"{line['wall_seconds']:,.1f}",
                line.get("end") or "no end was written",
            )
            for i, line in enumerate(lines)
        ]
        head = ("start", "from step", "to step", "seconds", "end")
        parts.append(details("Each start", table(head, starts, caption="Each start")))
    return join(parts)


def memory_of(lines: list[dict[str, Any]]) -> dict[str, int]:
    """The most bytes that were in use, by what holds them, where that was written."""
    found: dict[str, int] = {}
    for line in lines:
        peak = line.get("peak_bytes")
        for name, count in peak.items() if isinstance(peak, Mapping) else ():
            if isinstance(count, int):
                found[name] = max(found.get(name, 0), count)
    return found


def memory_section(lines: list[dict[str, Any]]) -> Markup:
    """The most memory that the run has had."""
    found = memory_of(lines)
    if not found:
        raise Missing("this version of the run did not write it down")
    pairs = [(f"most {_PLACES.get(n, n)}", mebibytes(b)) for n, b in found.items()]
    said = (
        "The process's own memory, and what jax has had on the first device at most, "
        "where the device says so."
    )
    return join([facts(pairs), paragraph(said, "note")])


def mebibytes(num_bytes: int) -> str:
    """Bytes for people."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:.2f} GiB"
    return f"{num_bytes / 2**20:.0f} MiB"


def versions_section(meta: Mapping[str, Any] | None) -> Markup:
    """Packages, machine and data, as the newest checkpoint says them."""
    if meta is None:
        raise Missing("they are in a checkpoint, and there is none yet")
    parts: list[object] = []
    data = meta.get("data")
    environment = meta.get("environment")
    environment = environment if isinstance(environment, Mapping) else {}
    pairs = [("checkpoint", f"step {meta['step']:,}")]
    if isinstance(meta.get("samples_seen"), int):
        pairs.append(("images seen", f"{meta['samples_seen']:,}"))
    if isinstance(data, Mapping):
        pairs.append(("data", ", ".join(f"{k} {v}" for k, v in data.items())))
    if meta.get("damaged_records") is not None:
        pairs.append(("damaged records", str(meta["damaged_records"])))
    if meta.get("init_from"):
        pairs.append(("began with", str(meta["init_from"])))
    first = ("processor", "cores", "device", "platform", "number of processes", "mesh")
    pairs += [(key, str(environment[key])) for key in first if environment.get(key)]
    versions = meta.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    pairs += [(str(name), str(version)) for name, version in versions.items()]
    if "dig_jax's code" in environment:
        pairs.append(("dig_jax's code", str(environment["dig_jax's code"])))
    parts.append(facts(pairs))
    others = [(str(k), str(v)) for k, v in environment.items() if k not in first]
    if others:
        parts.append(details("All that numbers may depend on", facts(others)))
    return join(parts)


def commands_section(
    workdir: AnyPath, values: Mapping[str, Any], *, unfinished: bool
) -> Markup:
    """What can be done with a run."""
    place = shlex.quote(f"--workdir={workdir}")
    labels = "--config.sample.labels=0 " if values.get("backbone.num_classes") else ""
    going_on = "Go on training" if unfinished else "Train for longer: more steps"
    steps = values.get(_STEPS, 0)
    aim = steps if unfinished else 2 * steps
    trained = _config_of({**values, _STEPS: aim})
    train = " ".join([RUN, *trained, place])
    return join(
        [
            command(f"{going_on}, from the newest checkpoint.", train),
            command(
                "Draw images into samples.npz and samples.png.",
                f"{RUN} --mode=sample {labels}{place}",
            ),
            command(
                "Score drawn images against the data set, with three seeds.",
                f"{RUN} --mode=evaluate --seeds=3 {place}",
            ),
            command(
                "Export a folder that draws without dig_jax.",
                f"{RUN} --mode=export {place}",
            ),
            command("Write this page again.", f"{RUN} --mode=report {place}"),
        ]
    )


def _config_of(values: Mapping[str, Any]) -> list[str]:
    """Flags that give this configuration; as it was told, where that is not known."""
    shipped = nearest(values)
    flags = config_flags(values, shipped) if shipped is not None else None
    if shipped is None or flags is None:
        return ["--config=FILE", f"--config.training.num_steps={values[_STEPS]}"]
    flags = [flag for flag in flags if not flag.startswith("--config.training.num_s")]
    if values[_STEPS] != shipped.values.get(_STEPS):
        flags.append(f"--config.training.num_steps={values[_STEPS]}")
    return [shlex.quote(flag) for flag in [f"--config={shipped.name}", *flags]]


def file_table(files: Mapping[str, str], sizes: Mapping[str, int]) -> Markup:
    """Files with their sizes and checksums."""
    rows = [
        (name, _size(sizes.get(name)), element("code", digest[:16]))
        for name, digest in sorted(files.items())
    ]
    head = ("file", "size", "sha256 begins with")
    return table(head, rows, caption="Files of the export")


def _size(num_bytes: int | None) -> str:
    if num_bytes is None:
        return ""
    return f"{num_bytes / 1e6:.2f} MB" if num_bytes > 1e5 else f"{num_bytes:,} bytes"
