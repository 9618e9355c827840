"""The processes of a run compute the same, or none of them begins.

Processes that were started with other configurations, code or data would train together
for hours, each its own network, and save what is no network at all.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from dig_jax.errors import InputError

KEY = "dig_jax/agreement"
MAX_SHOWN = 8


@runtime_checkable
class KeyValueStore(Protocol):
    """What jax's coordination service keeps for all processes."""

    def key_value_set(self, key: str, value: str) -> None: ...  # noqa: D102

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...  # noqa: D102


def check_agreement(described: Mapping[str, Any], timeout: float) -> None:
    """Return when all processes describe their run alike; each makes this call once.

    Args:
        described: What each of them must have alike, by name, as JSON has values.
        timeout: Seconds to wait for the others.

    Raises:
        InputError: Some differ: which, in what; the same message in every process.
        jax.errors.JaxRuntimeError: Another process is gone.
    """
    import jax

    if jax.process_count() == 1:
        return
    from jax._src import distributed

    store = distributed.global_state.client
    assert store is not None
    compare(store, jax.process_index(), jax.process_count(), described, timeout)


def compare(
    store: KeyValueStore,
    process_id: int,
    num_processes: int,
    described: Mapping[str, Any],
    timeout: float,
) -> None:
    """`check_agreement` of one process through a store that all of them reach.

    Process 0 compares, so that each description crosses the network once.
    """
    milliseconds = int(1000 * timeout)
    if process_id == 0:
        found = _Differences(described)
        for other in range(1, num_processes):
            text = store.blocking_key_value_get(f"{KEY}/{other}", milliseconds)
            found.add(other, json.loads(text))
        verdict = found.verdict()
        store.key_value_set(KEY, verdict)
    else:
        store.key_value_set(f"{KEY}/{process_id}", json.dumps(dict(described)))
        verdict = store.blocking_key_value_get(KEY, milliseconds)
    if verdict:
        raise InputError(verdict)


class _Differences:
    """What of process 0's description others do not share, and who."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._mine = json.loads(json.dumps(dict(described)))
        self._of: dict[str, dict[str, list[int]]] = {}

    def add(self, process_id: int, other: Mapping[str, Any]) -> None:
        for name in {*self._mine, *other}:
            there = other.get(name)
            if there != self._mine.get(name):
                values = self._of.setdefault(name, {})
                values.setdefault(_shown(there), []).append(process_id)

    def verdict(self) -> str:
        """A line that names them; "" where all agree."""
        if not self._of:
            return ""
        parts = []
        for name in sorted(self._of):
            for value, processes in self._of[name].items():
                who = f"process{'es' * (len(processes) > 1)} {_listed(processes)}"
                here = _shown(self._mine.get(name))
                parts.append(f"{name} is {value} in {who}, and {here} in process 0")
        more = len(parts) - MAX_SHOWN
        return (
            "All processes of a run need the same configuration, code, versions and "
            f"data, and these differ: {'; '.join(parts[:MAX_SHOWN])}"
            + (f"; and {more} more" if more > 0 else "")
            + ". Start all of them alike."
        )


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_SHOWN]))
    return f"{shown}, ..." if len(numbers) > MAX_SHOWN else shown
