"""What a training step of each variant takes: time and memory, measured in turn."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dig_jax.comparison.plan import Plan, Variant
from dig_jax.costs.compiled_step import find_memory
from dig_jax.data.loader import load_batches
from dig_jax.errors import InputError
from dig_jax.experiment import complete_section
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath
from dig_jax.files.reading import readable
from dig_jax.training.setup import TrainingSetup

ROUNDS = 5
SECONDS_A_ROUND = 1.0


class Speed(NamedTuple):
    """What one training step takes.

    Attributes:
        images_per_second: Median over the rounds.
        images_per_second_range: Slowest and fastest round.
        peak_bytes: Memory of one device that the compiled step needs: arguments,
            results and temporaries, by the compiler's account; None without one.
        compile_seconds: Time to trace and compile it.
    """

    images_per_second: float
    images_per_second_range: tuple[float, float]
    peak_bytes: int | None
    compile_seconds: float


def measure_speeds(
    plan: Plan, workdir: AnyPath, say: Callable[[str], None]
) -> dict[str, Speed]:
    """Measure every variant's training step, or read what was measured before.

    The variants take turns, forwards and backwards, so that a drift of the machine's
    speed falls on all alike. Kept in speed.json: budgets in seconds rest on it, so
    that a variant which comes later leaves the others' as they are.
    """
    path = workdir / "speed.json"
    identity = identity_of(plan)
    kept = _read_speeds(path, identity, say) if path.is_file() else {}
    pending = [variant for variant in plan.variants if variant.name not in kept]
    if not pending:
        return kept
    steps = {}
    for variant in pending:
        say(f"measuring  {variant.name}: compiling")
        steps[variant.name] = _TimedStep(variant, workdir)
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(ROUNDS):
        say(f"measuring  round {round_ + 1} of {ROUNDS}")
        for name in list(steps)[:: 1 if round_ % 2 else -1]:
            rates[name].append(steps[name].images_per_second())
    speeds = {
        name: Speed(
            images_per_second=float(np.median(rates[name])),
            images_per_second_range=(min(rates[name]), max(rates[name])),
            peak_bytes=step.peak_bytes,
            compile_seconds=step.compile_seconds,
        )
        for name, step in steps.items()
    }
    speeds = {v.name: (kept | speeds)[v.name] for v in plan.variants}
    record = {
        "identity": identity,
        "speeds": {name: speed._asdict() for name, speed in speeds.items()},
    }
    write_checked(path, record)
    return speeds


def _read_speeds(
    path: AnyPath, identity: dict[str, Any], say: Callable[[str], None]
) -> dict[str, Speed]:
    """Speeds that were measured of the same; none if damaged, which is said."""
    what = "does not hold measured speeds"
    try:
        saved = read_sound(path, what, "They are measured again.")
        with readable(path, what, "They are measured again."):
            before = _completed(saved["identity"])
            networks, known = identity["backbones"], before.pop("backbones")
            if before != {k: v for k, v in identity.items() if k != "backbones"}:
                return {}
            return {
                name: Speed(**speed)
                for name, speed in saved["speeds"].items()
                if name in networks and known[name] == networks[name]
            }
    except InputError as error:
        say(str(error))
        return {}


class _TimedStep:
    """A variant's compiled training step; its state lives while it is timed alone."""

    def __init__(self, variant: Variant, workdir: AnyPath) -> None:
        setup = TrainingSetup(variant.experiment, workdir / "speed")
        self._programs, self._batch_size = setup.programs, setup.options.batch_size
        batch = next(load_batches(setup.source, batch_size=self._batch_size, seed=0))
        self._batch = setup.place(batch)
        start = time.perf_counter()
        self._step = self._programs.lower_step().compile()
        self.compile_seconds = time.perf_counter() - start
        memory = find_memory(self._step)
        self.peak_bytes = None if memory is None else memory.peak

    def images_per_second(self) -> float:
        """Over a second or so, after two steps that are not counted."""
        state = self._programs.create_state()
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(self._step(state, *self._batch))
            seconds.append(time.perf_counter() - start)
        count = max(3, round(SECONDS_A_ROUND / seconds[-1]))
        start = time.perf_counter()
        for _ in range(count):
            state, _ = self._step(state, *self._batch)
        jax.block_until_ready(state)
        return count * self._batch_size / (time.perf_counter() - start)


def identity_of(plan: Plan) -> dict[str, Any]:
    """What measured speeds are of: another machine or another variant counts anew."""
    device = jax.devices()[0]
    identity = {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "jax": jax.__version__,
        "backbones": {v.name: v.experiment.section("backbone") for v in plan.variants},
        "batch_size": plan.reference.experiment.training.batch_size,
    }
    return json.loads(json.dumps(identity))  # as it will be read: without tuples


def _completed(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity with what its backbones leave at their defaults: once it was so."""
    backbones = {
        name: complete_section("backbone", section)
        for name, section in identity["backbones"].items()
    }
    return json.loads(json.dumps({**identity, "backbones": backbones}))
