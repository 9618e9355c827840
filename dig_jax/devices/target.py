"""The device that programs are made for: this machine's, or one compiled for."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import jax


class Gpu(NamedTuple):
    """An NVIDIA GPU that is compiled for, as far as choices depend on it.

    Attributes:
        compute_capability: (major, minor); (9, 0) of an H100.
        cudnn_version: As cuDNN counts: 10000 major + 100 minor + patch.
    """

    compute_capability: tuple[int, int]
    cudnn_version: int


class Target(NamedTuple):
    """What is compiled for, other than this machine.

    Attributes:
        platform: cpu, gpu or tpu.
        gpu: Which one; None for the platform in general.
    """

    platform: str
    gpu: Gpu | None = None


_target: ContextVar[Target | None] = ContextVar("target", default=None)


def current_target() -> Target | None:
    """What is compiled for; None for this machine."""
    return _target.get()


def target_platform() -> str:
    """What `auto` chooses for: cpu, gpu or tpu."""
    target = _target.get()
    return target.platform if target else jax.default_backend()


def compute_capability() -> tuple[int, int] | None:
    """(major, minor) of the NVIDIA GPU that is compiled for; None where not known."""
    target = _target.get()
    if target is not None:
        return target.gpu.compute_capability if target.gpu else None
    text = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if (major + minor).isdigit() else None


@contextlib.contextmanager
def compiling_for(platform: str, gpu: Gpu | None = None) -> Iterator[None]:
    """Networks made and traced in here are for that platform, whatever runs here.

    Args:
        platform: cpu, gpu or tpu.
        gpu: Which one, so that cuDNN's attention can be chosen without it.
    """
    if gpu is not None:
        _let_jax_ask_for_the_target()
    token = _target.set(Target(platform, gpu))
    try:
        yield
    finally:
        _target.reset(token)


@cache
def _let_jax_ask_for_the_target() -> None:
    """Where a GPU is compiled for, JAX's checks of cuDNN's attention ask for that one.

    They ask this machine's GPU and cuDNN, take no argument for another, and are
    private. Where a JAX has them elsewhere they go on asking this machine: without a
    GPU, `auto` then chooses plain products.
    """
    try:
        from jax._src.cudnn import fused_attention_stablehlo as checks
    except ImportError:
        return
    answers: dict[str, Callable[..., Any]] = {
        "check_cudnn_version": lambda gpu: gpu.cudnn_version,
        "check_compute_capability": lambda gpu, least: (
            gpu.compute_capability >= _numbers(least)
        ),
        "is_cuda_compute_capability_equal": lambda gpu, other: (
            gpu.compute_capability == _numbers(other)
        ),
    }
    for name, answer in answers.items():
        if hasattr(checks, name):
            setattr(checks, name, _asking(getattr(checks, name), answer))


def _asking(this_machine: Callable[..., Any], answer: Callable[..., Any]) -> Callable:
    def ask(*arguments: Any) -> Any:
        target = _target.get()
        if target is None or target.gpu is None:
            return this_machine(*arguments)
        return answer(target.gpu, *arguments)

    return ask


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
