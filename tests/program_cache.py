"""Compiled programs, kept for all tests, the processes they start, and later runs.

Programs are found by their HLO, the options they are compiled with, the devices and the
versions, so tests with other flags or devices have others. XLA keeps machine code: what
is read back computes the same bits. `JAX_ENABLE_COMPILATION_CACHE=false` goes without,
`JAX_COMPILATION_CACHE_DIR` names another folder.

What runs a few times can also be compiled quickly.
"""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
MAX_BYTES = 1 << 30  # of all machines that share this checkout
# What is left of a program when a process is killed while it writes.
UNREADABLE = "Error reading persistent compilation cache entry"
# XLA's older way to make loops for a CPU, through LLVM alone and not through MLIR:
# without optimizations it compiles a network's gradient in half of the time.
WITHOUT_MLIR = {"xla_cpu_use_fusion_emitters": False}


def keep_programs():
    """Have jax keep all programs; to be called before it is imported."""
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(FOLDER / machine()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # A program that another process is still writing is compiled once more, and no
    # test sees that on its stderr.
    said = os.environ.get("PYTHONWARNINGS")
    quiet = f"ignore:{UNREADABLE}"
    os.environ["PYTHONWARNINGS"] = f"{said},{quiet}" if said else quiet


@contextmanager
def compiled_quickly() -> Iterator[None]:
    """Programs compiled alike, to the same bits, whichever test asks first."""
    import jax
    from jax._src import compiler

    before = jax.config.read("jax_disable_most_optimizations")
    options_of_jax = compiler.get_compile_options

    def options(*arguments: Any, env_options_overrides: Any = None, **rest: Any) -> Any:
        changed = {**WITHOUT_MLIR, **(env_options_overrides or {})}
        return options_of_jax(*arguments, env_options_overrides=changed, **rest)

    jax.config.update("jax_disable_most_optimizations", True)
    if not before:  # else this is within another
        compiler.get_compile_options = options
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        compiler.get_compile_options = options_of_jax


def process_settings(num_devices: int, quickly: bool) -> dict[str, str]:
    """Variables of the environment of a process that has that many CPU devices.

    Args:
        num_devices: How many.
        quickly: Whether it compiles as within `compiled_quickly`.
    """
    flags = {"xla_force_host_platform_device_count": num_devices}
    flags |= WITHOUT_MLIR if quickly else {}
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(quickly)),
        "XLA_FLAGS": " ".join(
            f"--{name}={str(value).lower()}" for name, value in flags.items()
        ),
    }


def machine() -> str:
    """A name for processors that run the same machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    named = [line for line in lines if line.startswith(("flags", "model name"))]
    digest = hashlib.sha256("\n".join(sorted({*named})).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"


def tidy(folder: Path = FOLDER, max_bytes: int = MAX_BYTES) -> None:
    """Delete what a killed process wrote by half, and the programs used longest ago.

    Args:
        folder: Where the programs of every machine are.
        max_bytes: What they may take.
    """
    checked = folder / "checked"
    since = checked.stat().st_mtime if checked.exists() else 0.0
    kept = []
    for path in folder.glob("*/*-cache"):
        try:
            found = path.stat()
            whole = found.st_mtime < since or is_whole(path.read_bytes())
        except FileNotFoundError:  # another run tidies here too
            continue
        if whole:
            kept.append((max(found.st_atime, found.st_mtime), found.st_size, path))
        else:
            path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
    if folder.is_dir():
        checked.touch()


def is_whole(content: bytes) -> bool:
    """Whether jax can unpack a file."""
    from jax._src.compilation_cache import decompress_executable

    try:
        decompress_executable(content)
    except Exception:  # of whichever library compresses here
        return False
    return True
