"""Card, driver, versions, and which packages are missing."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_parts.schedule import RUNS

ROOT = Path(__file__).parents[2]
TESTS = ("pytest", "sklearn", "torch", "torch_geometric")
SECONDS = 90  # for a first look at the card


def describe_machine() -> dict[str, Any]:
    """What there is, asked for in another process: this one leaves the card alone."""
    path = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            found = {"error": done.stderr.strip().splitlines()[-1][:300]}
        else:
            found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = {"error": f"jax did not find its devices within {SECONDS} s"}
    return {**found, "missing": missing((*RUNS, *TESTS)), "commit": commit()}


def missing(modules: tuple[str, ...]) -> list[str]:
    """Those that cannot be imported."""

    def is_there(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # the package around it is missing
            return False

    return [name for name in modules if not is_there(name)]


def commit() -> str:
    """What is checked out; nothing where there is no git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def look() -> dict[str, Any]:
    """What jax sees; versions beside what setup.py asks for."""
    import jax

    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    versions = {}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "platform version": device.client.platform_version.replace("\n", " "),
        "GB for jax": round(stats.get("bytes_limit", 0) / 1e9, 1),
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "versions": versions,
        "too old": too_old(),
    }


def too_old() -> list[str]:
    """Packages that are older than setup.py asks for."""
    import ast

    try:
        from dig_jax.versions import describe_unmet, find_unmet
    except ImportError:
        return []
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            unmet = find_unmet(ast.literal_eval(node.value))
            return [describe_unmet(one) for one in unmet if one.installed]
    return []


if __name__ == "__main__":
    print(json.dumps(look()))
