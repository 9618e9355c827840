"""XLA's flags against each other: a process for each, since flags are read at start."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from gpu_parts.networks import STENCIL, STEP, UVIT, Bench, Program, warmed_up
from gpu_parts.report import Report

DEPTH = 4  # of the networks here: what flags change, they change in each block
FLAGS = {
    "as it is": "",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
    "cuBLASLt": "--xla_gpu_enable_cublaslt=true",
    "cuBLASLt, no Triton products": (
        "--xla_gpu_enable_cublaslt=true --xla_gpu_enable_triton_gemm=false"
    ),
    "exhaustive tiling": "--xla_gpu_exhaustive_tiling_search=true",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "all command buffers": (
        "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL"
    ),
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "any Triton products": "--xla_gpu_triton_gemm_any=true",
    "autotuning off": "--xla_gpu_autotune_level=0",
    "multi-output Triton fusions": (
        "--xla_gpu_unsupported_enable_triton_multi_output_fusion=true"
    ),
    "cuDNN products": "--xla_gpu_cudnn_gemm_fusion_level=2",
}
GO = "go\n"


class Child:
    """A process under some flags; it imports at once, finds the device, and waits.

    So one child is compiled and timed while the others sleep.
    """

    def __init__(self, name: str, argv: list[str], folder: Path) -> None:
        self.flags = FLAGS[name]
        self._errors = folder / f"{len(list(folder.iterdir()))}.log"
        before = os.environ.get("XLA_FLAGS", "")
        environment = {
            "XLA_FLAGS": f"{before} {self.flags}".strip(),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *argv, f"--under={name}"],
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def measure(self) -> dict[str, Any]:
        """What it measures; or why it does not."""
        assert self._process.stdin is not None
        try:
            said, _ = self._process.communicate(GO)
        except BrokenPipeError:
            said = ""
        if self._process.wait() == 0:
            return json.loads(said.splitlines()[-1])
        return {"error": self._reason()}

    def end(self) -> None:
        """Where it is not wanted any more."""
        self._process.kill()
        self._process.wait()

    def _reason(self) -> str:
        lines = self._errors.read_text(errors="replace").splitlines()
        for line in lines:
            if "Unknown flag in XLA_FLAGS" in line or "Illegal value for" in line:
                return f"not for this jaxlib: {line.split('] ')[-1][:160]}"
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"ended with {self._process.returncode}: {last[-160:]}"


def run(options: argparse.Namespace, report: Report) -> None:
    """Each set of flags over none, as far as the time goes."""
    names = list(FLAGS)[: options.num_flags or None]
    with tempfile.TemporaryDirectory() as folder:
        children = {name: Child(name, sys.argv, Path(folder)) for name in names}
        try:
            base: dict[str, float] = {}
            longest = 0.0
            for name, child in children.items():
                if report.seconds_left < 1.2 * longest + 3:
                    left = names[names.index(name) :]
                    report.note(f"no time left for: {', '.join(left)}")
                    break
                start = time.monotonic()
                found = child.measure()
                longest = max(longest, time.monotonic() - start)
                base = base or {k: v for k, v in found.items() if k != "error"}
                report.add("flags", row_of(name, child.flags, found, base))
        finally:
            for child in children.values():
                child.end()


def row_of(
    name: str, flags: str, found: dict[str, Any], base: dict[str, float]
) -> dict[str, Any]:
    """Milliseconds of each network, and over those without flags."""
    row: dict[str, Any] = {"what": name, "flags": flags}
    for network, value in found.items():
        row[network] = value
        if isinstance(value, float) and isinstance(base.get(network), float):
            row[f"{network}, over as it is"] = round(value / base[network], 3)
    return row


def measure_under(options: argparse.Namespace, wait: IO[str]) -> dict[str, Any]:
    """What a child does: milliseconds of a step by network."""
    import jax
    import numpy as np
    from common import seconds_in_turn

    from gpu_parts.tables import sizes_of

    sizes = sizes_of(options)
    bench = Bench(sizes._replace(depth=min(sizes.depth or DEPTH, DEPTH)))
    jax.devices()  # an unknown flag ends the process here
    wait.readline()
    programs = warmed_up(bench.compile([(STENCIL, STEP), (UVIT, STEP)]))
    found: dict[str, Any] = {
        k: p for (k, _), p in programs.items() if isinstance(p, str)
    }
    runs = {k: p.run for k, p in programs.items() if isinstance(p, Program)}
    for (name, _), times in seconds_in_turn(runs, repeats=sizes.repeats).items():
        found[name] = round(float(np.median(times)) / sizes.count * 1e3, 3)
    return found
