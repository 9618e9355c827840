"""Cases compiled for the device under test, side by side, and their references."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from dig_jax.devices.target import compiling_for

NUM_THREADS = 8


class Lowered(NamedTuple):
    """A program that is not compiled yet, and what to call it with."""

    program: jax.stages.Lowered
    arguments: Any


def platform_of(device: Any) -> str:
    """As `dig_jax.devices.target` names it."""
    return "cpu" if device.platform == "cpu" else "gpu"


@contextlib.contextmanager
def made_for(device: Any):
    """Networks made and traced in here are for that device, and their arrays on it."""
    with compiling_for(platform_of(device)), jax.default_device(device):
        yield


def lower_on(device: Any, function: Callable, *arguments: Any) -> Lowered:
    """Trace a function for a device, and put its arguments there."""
    placed = jax.device_put(arguments, device)
    return Lowered(jax.jit(function).lower(*placed), placed)


def selected(request: Any, name_of: Callable[..., str]) -> list[str]:
    """The cases of the tests of a module that are to run, by their parameters."""
    items = (item for item in request.session.items if item.path == request.path)
    chosen = (item.callspec.params for item in items if hasattr(item, "callspec"))
    return list(dict.fromkeys(name_of(**parameters) for parameters in chosen))


class Results:
    """What programs compute, by case; all are compiled in threads at the first one.

    A case that cannot be traced, compiled or run raises when it is asked for.
    """

    def __init__(self, lower: Callable[[str], Lowered], cases: list[str]) -> None:
        self._lower, self._cases = lower, cases
        self._futures: dict[str, Future] = {}

    def __getitem__(self, case: str) -> Any:
        if not self._futures:
            with ThreadPoolExecutor(NUM_THREADS) as pool:
                for name in self._cases:
                    self._futures[name] = self._start(name, pool)
        program, arguments = self._futures[case].result()
        return jax.tree.map(np.asarray, program(*arguments))

    def _start(self, case: str, pool: ThreadPoolExecutor) -> Future:
        try:
            lowered = self._lower(case)
        except Exception as error:  # the case's own test shall fail, not another's
            failed = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(
            lambda: (lowered.program.compile(), lowered.arguments),
        )


def largest_error(actual: Any, expected: Any) -> tuple[float, str]:
    """The largest error of a leaf, over the leaf's largest value, and where it is."""

    found: list[tuple[float, str]] = []

    def compare(path: tuple, a: Any, b: Any) -> None:
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        assert a.shape == b.shape
        wrong = float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))
        where = jax.tree_util.keystr(path)
        found.append((wrong if np.isfinite(wrong) else np.inf, where))

    jax.tree_util.tree_map_with_path(compare, actual, expected)
    return max(found)


def norm_error(actual: Any, expected: Any) -> float:
    """Norm of the difference of two trees over that of the second."""
    flat, exact = (
        np.concatenate([np.ravel(np.float64(leaf)) for leaf in jax.tree.leaves(tree)])
        for tree in (actual, expected)
    )
    return float(np.linalg.norm(flat - exact) / np.linalg.norm(exact))
