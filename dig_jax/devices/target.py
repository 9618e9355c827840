"""The platform that programs are made for: this machine's, or one compiled for."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_platform: ContextVar[str | None] = ContextVar("target_platform", default=None)


def target_platform() -> str:
    """What `auto` chooses for: cpu, gpu or tpu."""
    return _platform.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Networks made and traced in here are for that platform, whatever runs here."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
