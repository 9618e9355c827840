"""Compiled programs, kept from one start to the next in JAX's persistent cache.

The command line keeps them for GPUs and TPUs; `import dig_jax` changes no setting of
JAX. On a CPU they are kept only where a folder is named: what XLA for CPUs reads back
is machine code, which on some processors it warns of line after line ("could lead to
execution errors such as SIGILL": jax-ml/jax#38445, openxla/xla#44565), and which has
crashed processes on Macs. There is less to gain, too: CPUs compile in seconds.
"""

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from dig_jax.files.shown import say

OFF = "off"
# What compiles faster is not worth a file: a step has some fifty such programs.
LEAST_SECONDS = 0.02
MOST_BYTES = 4 * 2**30
"""The oldest programs are deleted beyond it, when a process starts."""
SUFFIX = "-cache"
_TROUBLE = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([^']*)': (.*)",
    re.DOTALL,
)


def use_compilation_cache(choice: str | None = None) -> None:
    """Keep compiled programs from now on; nothing may have been compiled yet.

    A folder that JAX_COMPILATION_CACHE_DIR names is left as it is. Whatever happens to
    the cache, the run goes on: at most one line says that it is not used.

    Args:
        choice: A folder, or "off"; None for the user's own on GPUs and TPUs.
    """
    import jax

    if choice == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    _count_lookups()
    if jax.config.values[
        "jax_compilation_cache_dir"
    ]:  # by JAX_COMPILATION_CACHE_DIR or the caller
        return
    platform = jax.default_backend()
    if choice is None and platform == "cpu":
        return
    folder = Path(choice) if choice else user_folder()
    try:
        folder = folder.expanduser() / _kind(platform)
        # Whoever can write there can have this process run what they like.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        forget_oldest(folder, MOST_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        _say(f"{error}; compiled programs are not kept")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    _say_trouble_once(folder)


def user_folder() -> Path:
    """Where the user's programs are kept: dig_jax in the system's cache folder."""
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "dig_jax" / "Cache"
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "dig_jax"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/dig_jax")
    return Path("~/.cache/dig_jax")


def forget_oldest(folder: Path, most_bytes: int) -> None:
    """Delete the programs that were not used for longest, until the others fit."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            status = path.stat()
        except OSError:  # another process has just deleted it
            continue
        used = max(status.st_atime, status.st_mtime)
        found.append((used, status.st_size, path))
    excess = sum(size for _, size, _ in found) - most_bytes
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        _delete(path)
        excess -= size


def _kind(platform: str) -> str:
    """A name that machines share only if they can run each other's programs."""
    if platform != "cpu":
        return platform
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        import platform as machine

        text = f"flags: {machine.processor()} {machine.platform()}"
    lines = [line for line in text.splitlines() if line.startswith(("flags", "model"))]
    digest = hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()
    return f"cpu-{digest[:8]}"


def _say(text: str) -> None:
    say(f"compilation cache: {text}", error=True)


def _say_trouble_once(folder: Path) -> None:
    """Turn JAX's warnings of the cache into one line; delete what cannot be read."""
    show, said = warnings.showwarning, []

    def show_warning(message: Any, *arguments: Any, **more: Any) -> None:
        trouble = _TROUBLE.match(str(message))
        if trouble is None:
            show(message, *arguments, **more)
            return
        doing, program, why = trouble.groups()
        if doing == "reading":  # JAX would read it again at each start
            for path in folder.glob(f"{program}-*{SUFFIX}"):
                _delete(path)
        if not said:
            said.append(True)
            what = "read from" if doing == "reading" else "written to"
            _say(f"{program} could not be {what} {folder} ({why}); it is compiled")

    warnings.showwarning = show_warning


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class Lookups(NamedTuple):
    """Programs that were looked for in the cache, and those of them that it had."""

    asked: int = 0
    found: int = 0


_lookups: Lookups | None = None
_COUNTED = {
    "/jax/compilation_cache/compile_requests_use_cache": Lookups(asked=1),
    "/jax/compilation_cache/cache_hits": Lookups(found=1),
}


def lookups() -> Lookups:
    """How many there were up to now; none where nothing is kept."""
    return _lookups or Lookups()


def from_cache_since(before: Lookups) -> bool:
    """Whether the cache had all programs of the meantime."""
    asked, found = (now - then for now, then in zip(lookups(), before, strict=True))
    return 0 < asked == found


def _count_lookups() -> None:
    global _lookups
    if _lookups is not None:
        return
    _lookups = Lookups()
    import jax.monitoring

    def count(event: str, **_: Any) -> None:
        global _lookups
        if event in _COUNTED:
            asked, found = _COUNTED[event]
            before = lookups()
            _lookups = Lookups(before.asked + asked, before.found + found)

    jax.monitoring.register_event_listener(count)
