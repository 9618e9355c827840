"""Everything that a GPU is asked, in one command for whoever has one for ten minutes.

    python benchmarks/gpu.py --minutes=8 --out=FILE.json

No network is needed, and nothing is installed: packages are taken as they are there, or
from folders named by PYTHONPATH. In this order: the tests marked gpu; starting times;
training and forward of the networks of the paper; aggregations against none; the same
blocks in torch; a step's kernels by kind; XLA's flags against each other; memory and
the largest batch. Each part is a process of its own with a deadline; it is printed as
it ends, and what it has found is in the file at any time. Parts that no longer fit are
named. Within a part programs are compiled side by side while nothing is timed.

Elsewhere: --platform=cpu --tiny runs all of it on a CPU, to see that it works. Some of
it: --parts=tables,memory.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for place in (ROOT, ROOT / "benchmarks"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from gpu_parts.goals import goals  # noqa: E402
from gpu_parts.machine import describe_machine, missing  # noqa: E402
from gpu_parts.report import Report, read_record, write_whole  # noqa: E402
from gpu_parts.schedule import PARTS, Part, allowance  # noqa: E402
from table import print_table  # noqa: E402

EXIT_BAD_INPUT = 78
RESERVE = 5.0  # seconds of the whole, for the end
TINY_LEAST = 5.0
TINY = dict(
    batch=4,
    depth=2,
    width=64,
    count=1,
    repeats=2,
    product=256,
    digits_steps=4,
    num_flags=2,
    memory=10**9,
)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--platform", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--parts", default=",".join(names), help="some of them")
    parser.add_argument("--only", default="", help="tests: as pytest's -k")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--width", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--count", type=int, default=5, help="steps a measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements")
    parser.add_argument("--product", type=int, default=8192, help="of the card's rate")
    parser.add_argument("--digits_steps", type=int, default=300)
    parser.add_argument("--num_flags", type=int, default=0, help="0: all")
    parser.add_argument("--memory", type=int, default=0, help="bytes; 0: the card's")
    for name in ("part", "result", "under"):  # of the processes that this one starts
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    if "--tiny" in arguments:
        parser.set_defaults(**TINY)
    options = parser.parse_args(arguments)
    unknown = set(options.parts.split(",")) - set(names)
    if unknown:
        parser.exit(
            EXIT_BAD_INPUT,
            f"error: unknown parts {', '.join(sorted(unknown))}. Available: "
            f"{', '.join(names)}.\n",
        )
    if options.minutes <= 0:
        parser.exit(
            EXIT_BAD_INPUT,
            f"error: --minutes must be more than 0, got {options.minutes:g}.\n",
        )
    return options


class Run:
    """All parts, one after the other, and the file of what they found."""

    def __init__(self, options: argparse.Namespace, argv: list[str]) -> None:
        self.options, self._argv = options, argv
        self._ends = time.monotonic() + 60 * options.minutes
        self.record: dict[str, Any] = {
            "command": ["python", "benchmarks/gpu.py", *argv],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "parts": {},
        }

    def run(self) -> int:
        """Look at the machine, then run what fits; returns the exit code."""
        options = self.options
        self.record["machine"] = machine = describe_machine()
        self._write()
        if machine.get("platform") != {"cuda": "gpu"}.get(options.platform, "cpu"):
            said = machine.get("error", f"jax sees {machine.get('platform')} alone")
            print(
                f"error: no GPU: {said}. --platform=cpu --tiny tries this script on a "
                "CPU.",
                file=sys.stderr,
            )
            return EXIT_BAD_INPUT
        self._say_machine(machine)
        chosen = [part for part in PARTS if part.name in options.parts.split(",")]
        if options.tiny:
            chosen = [part._replace(least=TINY_LEAST) for part in chosen]
        with tempfile.TemporaryDirectory() as folder:
            for index, part in enumerate(chosen):
                self._run_part(part, chosen[index + 1 :], Path(folder))
        found = goals(self.record["parts"])
        if found:
            print("\n## Goals\n")
            print_table(found)
        self.record["goals"] = found
        self.record["seconds"] = round(60 * options.minutes - self._left, 1)
        self._write()
        print(f"\nAll of it is in {options.out}.")
        return 0

    @property
    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _write(self) -> None:
        write_whole(self.options.out, self.record)

    def _say_machine(self, machine: dict[str, Any]) -> None:
        versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
        print(
            f"{machine['device']}, {machine['cores']} cores, Python "
            f"{machine['python']}; {versions}"
        )
        print(f"missing packages: {', '.join(machine['missing']) or 'none'}")
        if machine["too old"]:
            print(f"older than setup.py asks for: {'; '.join(machine['too old'])}")
        sys.stdout.flush()

    def _run_part(self, part: Part, later: list[Part], folder: Path) -> None:
        """Run a part until its deadline, and print what it found."""
        print(f"\n## {part.name}: {part.asks}\n", flush=True)
        seconds = allowance(part, later, self._left - RESERVE)
        lacking = missing(part.needs)
        entry: dict[str, Any] = {"asks": part.asks, "allowed_seconds": round(seconds)}
        self.record["parts"][part.name] = entry
        if lacking:
            entry["status"] = f"left out: without {', '.join(lacking)}"
        elif not seconds:
            left = max(self._left - RESERVE, 0)
            entry["status"] = f"left out: {left:.0f} s left, {part.least:.0f} needed"
        else:
            start = time.monotonic()
            self._follow(part, seconds, folder, entry)
            entry["seconds"] = round(time.monotonic() - start, 1)
        self._write()
        self._print(entry)

    def _follow(
        self, part: Part, seconds: float, folder: Path, entry: dict[str, Any]
    ) -> None:
        """Keep the file as new as the part's own."""
        result, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
        arguments = [*self._argv, f"--part={part.name}", f"--result={result}"]
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, __file__, *arguments, f"--seconds={seconds}"],
                env=environment_of(self.options, folder),
                stdout=errors,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ends = time.monotonic() + seconds
        entry["status"] = "running"
        try:
            while process.poll() is None and time.monotonic() < ends:
                time.sleep(0.2)
                self._take(entry, result)
        finally:
            cut = process.poll() is None
            end_group(process)
        self._take(entry, result)
        entry["status"] = "done"
        if cut:
            entry["status"] = f"cut off after {seconds:.0f} s"
        elif process.returncode:
            said = log.read_text(errors="replace").splitlines()
            entry["status"] = f"failed with {process.returncode}"
            entry["log"] = "\n".join(said[-25:])[-4000:]

    def _take(self, entry: dict[str, Any], result: Path) -> None:
        found = read_record(result)
        if any(entry.get(key) != value for key, value in found.items()):
            entry |= found
            self._write()

    def _print(self, entry: dict[str, Any]) -> None:
        print(f"{entry['status']}; {entry.get('seconds', 0)} s")
        for name, rows in entry.get("tables", {}).items():
            print(f"\n{name}:\n")
            print_table(brief(rows) if name == "tests" else rows)
        for note in [*entry.get("notes", []), entry.get("log", "")]:
            if note:
                print(f"\n{note}")
        sys.stdout.flush()


def brief(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many tests ended in which way, and those that failed by name."""
    results = [row["result"] for row in tests]
    counts = [
        {"tests": results.count(result), "result": result}
        for result in dict.fromkeys(results)
    ]
    failed = [row for row in tests if row["result"] in ("failed", "error")]
    return counts + [{"tests": r["test"], "result": r["result"]} for r in failed]


def environment_of(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What parts run under: the platform, this repository, one cache of programs."""
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    # Programs that only show that this script works are compiled as quickly as may be.
    quickly = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if options.tiny else {}
    return os.environ | {
        "JAX_PLATFORMS": platforms(options),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        **quickly,
    }


def platforms(options: argparse.Namespace) -> str:
    """JAX's; a GPU with the CPU beside it."""
    return "cuda,cpu" if options.platform == "cuda" else "cpu"


def end_group(process: subprocess.Popen) -> None:
    """End a part and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(2)
        except (ProcessLookupError, PermissionError):
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def run_part(options: argparse.Namespace) -> int:
    """In a process that `Run` started: one part."""
    module = importlib.import_module(f"gpu_parts.{options.part}")
    module.run(options, Report(Path(options.result), options.seconds))
    return 0


def main(arguments: list[str]) -> int:
    """Run all parts, or as a child one of them; returns the exit code."""
    options = parse(arguments)
    if options.under:
        from gpu_parts.xla_flags import measure_under

        print(json.dumps(measure_under(options, sys.stdin)))
        return 0
    if options.part:
        return run_part(options)
    os.environ["JAX_PLATFORMS"] = platforms(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its children end, too
    return Run(options, arguments).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
