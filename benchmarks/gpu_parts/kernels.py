"""Where a step's time goes, by kind of kernel, from the trace that jax writes."""

import argparse
import gzip
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gpu_parts.networks import STENCIL, STEP, UVIT, Bench, Program, warmed_up
from gpu_parts.report import Report
from gpu_parts.tables import sizes_of

LARGEST = 10
# By the names that XLA, its libraries and CUPTI give kernels; the first that fits.
KINDS = (
    ("attention", r"fmha|flash|sdpa|cudnn.*(attn|attention|generated)"),
    ("products, Triton", r"gemm_fusion|triton_gemm|block_scaled|nested_gemm"),
    ("products, libraries", r"gemm|cublas|nvjet|cutlass|xmma|matmul|^dot|dot_general"),
    ("copies", r"memcpy|memset|copy|transpose"),
    ("sums", r"reduce|reduction|splitk"),
    ("scatters", r"scatter|sort"),
    ("other fusions", r"fusion|fused|triton"),
)
OTHER = "other"


class Kernel(NamedTuple):
    """One launch: its name, the operation of the program, microseconds."""

    name: str
    operation: str
    microseconds: float


def run(options: argparse.Namespace, report: Report) -> None:
    """DiG-parallel's step, and U-ViT's."""
    sizes = sizes_of(options)._replace(count=options.count)
    wanted = [(STENCIL, STEP), (UVIT, STEP)]
    programs = warmed_up(Bench(sizes).compile(wanted))
    for network, work in wanted:
        program = programs[network.name, work]
        if isinstance(program, str):
            report.add("kinds", {"network": network.name, "error": program})
            continue
        kernels = trace(program)
        if not kernels:
            report.note(f"{network.name}: the trace names no kernels")
        for row in by_kind(kernels, sizes.count):
            report.add("kinds", {"network": network.name, **row})
        for row in largest(kernels, sizes.count):
            report.add("largest", {"network": network.name, **row})


def trace(program: Program) -> list[Kernel]:
    """The kernels that `program.run` launches."""
    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        options.host_tracer_level = 1 if jax.default_backend() == "gpu" else 2
        jax.profiler.start_trace(folder, profiler_options=options)
        try:
            jax.block_until_ready(program.run())
        finally:
            jax.profiler.stop_trace()
        (file,) = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(file, "rt", encoding="utf-8") as opened:
            return read_kernels(json.load(opened)["traceEvents"])


def read_kernels(events: list[dict[str, Any]]) -> list[Kernel]:
    """Those of a Chrome trace that ran on a GPU's streams; on a CPU, its operations.

    The lines that the profiler derives from the streams (modules, operations) would
    count everything twice, and so would an operation that waits for those inside it.
    """
    processes, threads = {}, {}
    for event in events:
        if event.get("ph") == "M" and event["name"] == "process_name":
            processes[event["pid"]] = event["args"]["name"]
        if event.get("ph") == "M" and event["name"] == "thread_name":
            threads[event["pid"], event["tid"]] = event["args"]["name"]
    kernels, on_host = [], []
    for event in events:
        if event.get("ph") != "X":
            continue
        place = processes.get(event["pid"], "")
        line = threads.get((event["pid"], event["tid"]), "")
        operation = event.get("args", {}).get("hlo_op", "")
        kernel = Kernel(event["name"], operation, float(event.get("dur", 0.0)))
        if "/device:GPU" in place and line.startswith("Stream"):
            kernels.append(kernel)
        elif operation and "/host:CPU" in place and not calls_others(operation):
            on_host.append(kernel)
    return kernels or on_host


def calls_others(operation: str) -> bool:
    """Whether a CPU's operation only runs others, which are counted themselves."""
    return operation.startswith(("call", "while", "conditional"))


def kind_of(kernel: Kernel) -> str:
    """In words, by its name, or that of its operation."""
    for kind, pattern in KINDS:
        if re.search(pattern, f"{kernel.name} {kernel.operation}".lower()):
            return kind
    return OTHER


def by_kind(kernels: Iterable[Kernel], steps: int) -> list[dict[str, Any]]:
    """Milliseconds and launches of a step, the most expensive kind first."""
    spent, launches = defaultdict(float), Counter()
    for kernel in kernels:
        for key in (kind_of(kernel), "all"):
            spent[key] += kernel.microseconds
            launches[key] += 1
    return [
        {
            "kind": kind,
            "ms a step": round(spent[kind] / steps / 1e3, 3),
            "share": round(spent[kind] / max(spent["all"], 1e-9), 3),
            "launches": round(launches[kind] / steps, 1),
        }
        for kind in sorted(spent, key=lambda kind: -spent[kind])
    ]


def largest(kernels: Iterable[Kernel], steps: int) -> list[dict[str, Any]]:
    """The kernels that take most of a step together, over all of their launches."""
    spent, launches, kinds = defaultdict(float), Counter(), {}
    for kernel in kernels:
        spent[kernel.name] += kernel.microseconds
        launches[kernel.name] += 1
        kinds[kernel.name] = kind_of(kernel)
    return [
        {
            "kernel": name[:80],
            "kind": kinds[name],
            "ms a step": round(spent[name] / steps / 1e3, 3),
            "launches": round(launches[name] / steps, 1),
        }
        for name in sorted(spent, key=lambda name: -spent[name])[:LARGEST]
    ]
