"""What a run's numbers depend on beside its configuration, and what of it changed.

Kept with each checkpoint, so that a resumed run can say whether its steps are the ones
that an uninterrupted run would have taken, bit for bit, or as close as rounding allows.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from dig_jax.experiment import COMPUTING_KEYS, Experiment
from dig_jax.versions import package_versions

EXACT, CLOSE = "exact resume", "close resume"

PACKAGE = Path(__file__).parents[1]
# Packages that compute; the others hand on bits as they are.
COMPUTING_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax")
# Where dig_jax says what a step computes, and on what.
COMPUTING_CODE = (
    "data",
    "diffusion",
    "devices/sharding.py",
    "devices/target.py",
    "graphs",
    "models",
    "ops",
    "options",
    "storage/power_ema.py",
    "storage/state.py",
    "training/gradient.py",
    "training/optimizer.py",
    "training/programs.py",
    "training/step.py",
)
CODE = "dig_jax's code"
JAX_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_disable_most_optimizations",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)
FLAG_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# Where XLA writes, and what the mesh says anyway.
HARMLESS_FLAGS = ("--xla_dump", "--xla_force_host_platform_device_count")


def describe_environment(experiment: Experiment, mesh: Mesh) -> dict[str, Any]:
    """What the bits of a training step depend on, by name, as JSON.

    Args:
        experiment: What is trained.
        mesh: The run's devices.
    """
    first = mesh.devices.flat[0]
    versions = package_versions()
    found = {
        **{name: versions[name] for name in COMPUTING_PACKAGES},
        CODE: code_digest(),
        "platform": first.platform,
        "device": first.device_kind,
        "platform version": " ".join(first.client.platform_version.split()),
        "mesh": {name: size for name, size in mesh.shape.items() if size > 1},
        "number of processes": jax.process_count(),
        **{name: jax.config.values.get(name) for name in JAX_SETTINGS},
        **{name: _flags(name) for name in FLAG_VARIABLES},
        **{key: _value(experiment, key) for key in COMPUTING_KEYS},
    }
    if experiment.optimizer.schedule != "constant":  # its end is the run's
        found["training.num_steps"] = experiment.training.num_steps
    if first.platform == "cpu":  # XLA compiles for the processor, and splits by cores
        found |= {"processor": _processor(), "cores": _num_cores()}
    return found


def describe_resume(meta: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Whether a run goes on exactly as it would have, or what has changed.

    Args:
        meta: Of the checkpoint that it goes on from.
        environment: What `describe_environment` says now.
    """
    before, unknown = meta.get("environment"), ""
    if before is None:
        before = {k: v for k, v in meta["versions"].items() if k in environment}
        unknown = "the checkpoint is of a dig_jax that did not yet note its environment"
        environment = {k: v for k, v in environment.items() if k in before}
    changes = [
        f"{name} changed from {_shown(before.get(name))} to "
        f"{_shown(environment.get(name))}"
        for name in dict.fromkeys([*environment, *before])
        if before.get(name) != environment.get(name)
    ]
    why = [*([unknown] if unknown else []), *changes]
    return f"{CLOSE}: {'; '.join(why)}" if why else EXACT


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return (
            " x ".join(f"{size} {name}" for name, size in value.items()) or "1 device"
        )
    return str(value) if value not in (None, "") else "none"


def _value(experiment: Experiment, key: str) -> Any:
    """A key's value; None for one that this backbone does not have."""
    section, _, name = key.partition(".")
    return experiment.section(section).get(name)


def _flags(variable: str) -> str:
    flags = os.environ.get(variable, "").split()
    return " ".join(sorted(f for f in flags if not f.startswith(HARMLESS_FLAGS)))


def code_digest() -> str:
    """8 hex digits of the source of what a step computes."""
    files = []
    for name in COMPUTING_CODE:
        path = PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def _processor() -> str:
    """The processor's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    models = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(models, "").strip()


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
