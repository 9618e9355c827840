"""What a run measures, on its way from the device to those who read it."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import SupportsFloat, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dig_jax.errors import NonFiniteError
from dig_jax.options import TrainingOptions
from dig_jax.reporting.metric_writer import DIVERSITY, NOISE_LEVEL_LOSS, MetricWriter
from dig_jax.reporting.progress import Progress
from dig_jax.training.schedule import schedule
from dig_jax.training.step import StepMetrics

# Steps handed to the device before the host looks at the oldest one's metrics: enough
# that the device never waits, few enough that progress is true.
STEPS_IN_FLIGHT = 3
MAX_BAD_STEPS = 10
PARTIAL = "steps_averaged"
"""In a line whose means leave out steps of an earlier start: of how many they are."""

Count: TypeAlias = int | Int[Array, ""]


class TrainingLog:
    """Metrics on their way from the device to the progress bar and the writer.

    Looks only at steps that are done or nearly so, so that the device always has work.

    Args:
        writer: Of the lines; None where another process writes them.
        progress: The bar.
        options: When lines are due.
        start: Step that the run goes on from.
        damaged_records: As the attribute, up to there; None if nobody counted.
        learning_rate: That of the next update, by how many were made before; None to
            leave it out.
        num_updates: How many were made up to there; steps that were not finite made
            none.

    Attributes:
        damaged_records: Damaged records that others stood in for since the run began,
            each as often as it came, up to `done`.
        done: The newest step that was looked at.
    """

    def __init__(
        self,
        writer: MetricWriter | None,
        progress: Progress,
        options: TrainingOptions,
        start: int,
        damaged_records: int | None = 0,
        *,
        learning_rate: Callable[[int], SupportsFloat] | None = None,
        num_updates: int = 0,
    ) -> None:
        self._writer, self._progress, self._options = writer, progress, options
        self._when = schedule(options)["log"]
        self.damaged_records, self.done = damaged_records, start
        self._resumed_within = not self._when.has(start)
        self._learning_rate, self._num_updates = learning_rate, num_updates
        self._in_flight: deque[tuple[int, StepMetrics, Count]] = deque()
        self._since: list[dict[str, np.ndarray]] = []
        self._diversity: dict[int, Array] = {}
        self._shown_rate: float | None = None
        self._restart_clock(start)

    def add(self, step: int, metrics: StepMetrics, damaged: Count) -> None:
        """Take metrics of a step that the device is given, and its batch's damage."""
        self._in_flight.append((step, metrics, damaged))
        while len(self._in_flight) > STEPS_IN_FLIGHT:
            self._take(*self._in_flight.popleft())

    def add_diversity(self, step: int, values: Float[Array, "block"]) -> None:
        """Take the feature diversity after a step, right after its metrics."""
        self._diversity[step] = values

    def finish(self) -> None:
        """Wait for every step handed over, and see its lines written.

        A checkpoint is saved after this: a run that goes on from one has all its lines.
        """
        while self._in_flight:
            self._take(*self._in_flight.popleft())
        if self._writer is not None:
            self._writer.flush()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of images/s."""
        began = time.perf_counter()
        yield
        self._clock += time.perf_counter() - began

    def _restart_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.perf_counter(), step

    def _take(self, step: int, metrics: StepMetrics, damaged: Count) -> None:
        values = jax.device_get(metrics)
        self.done = step
        if self.damaged_records is not None:
            self.damaged_records += int(damaged)
        if values["bad_steps"] >= MAX_BAD_STEPS:
            raise NonFiniteError(
                f"{MAX_BAD_STEPS} steps in a row were not finite; at step {step} the "
                f"loss is {values['loss']:.4g}, the gradient's norm "
                f"{values['grad_norm']:.4g}, the update's norm "
                f"{values['update_norm']:.4g}. Parameters and checkpoints from before "
                f"are untouched. A smaller optimizer.learning_rate, a longer warm-up or"
                f" optimizer.max_grad_norm may help."
            )
        self._since.append(values)
        if step in self._diversity:
            per_block = np.asarray(self._diversity.pop(step))
            self._write(step, _numbered(DIVERSITY, enumerate(per_block)))
        rate, seconds = self._rate(step)
        learning_rate = None
        if self._when.has(step) or self._shown_rate is None:
            learning_rate = self._learning_rate and self._learning_rate(
                self._num_updates
            )
        self._num_updates += int(values["bad_steps"] == 0)
        if seconds > 1 or self._shown_rate is None:  # a shorter time says little
            self._shown_rate = rate
        self._progress.update(step, values["loss"], self._shown_rate, learning_rate)
        if self._when.has(step):
            self._write_line(step, rate, learning_rate)
            self._resumed_within = False
            self._since = []
            self._restart_clock(step)

    def _write_line(
        self, step: int, rate: float, learning_rate: SupportsFloat | None
    ) -> None:
        """Means over the steps since the line before, and the last one's rates.

        A run that goes on from a checkpoint between two lines knows only the steps
        since then: the line after it says of how many steps its means are.
        """
        steps = {
            name: np.array([values[name] for values in self._since], np.float64)
            for name in self._since[0]
        }
        scalars = ("loss", "grad_norm", "update_norm")
        losses = steps["noise_level_loss"].sum(axis=0)
        images = steps["noise_level_images"].sum(axis=0)
        by_level = [(i, losses[i] / n) for i, n in enumerate(images) if n > 0]
        damaged = self.damaged_records
        self._write(
            step,
            {
                **{name: steps[name].mean() for name in scalars},
                "images_per_second": rate,
                **({} if learning_rate is None else {"learning_rate": learning_rate}),
                "skipped_steps": int((steps["bad_steps"] > 0).sum()),
                **({} if damaged is None else {"damaged_records": damaged}),
                **({PARTIAL: len(self._since)} if self._resumed_within else {}),
                **_numbered(NOISE_LEVEL_LOSS, by_level),
            },
        )

    def _write(self, step: int, scalars: Mapping[str, SupportsFloat]) -> None:
        if self._writer is not None:
            self._writer.write(step, scalars)

    def _rate(self, step: int) -> tuple[float, float]:
        """Images per second, and the seconds that it is an average over."""
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        images = (step - self._clock_step) * self._options.batch_size
        return images / seconds, seconds


def _numbered(prefix: str, values: Iterable[tuple[int, float]]) -> dict[str, float]:
    return {f"{prefix}{number:02d}": float(value) for number, value in values}
