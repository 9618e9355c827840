"""What a run does between its steps: saving, drawing, scoring, plotting."""

from typing import NamedTuple

from dig_jax.evaluation.curves import plot_curves
from dig_jax.files.paths import AnyPath
from dig_jax.reporting.goodput import GoodputFile
from dig_jax.reporting.images import write_png
from dig_jax.reporting.metric_writer import MetricWriter
from dig_jax.reporting.progress import Progress
from dig_jax.storage.state import TrainState
from dig_jax.training.held_out import HeldOutLoss
from dig_jax.training.log import TrainingLog
from dig_jax.training.preview import Preview, of_training, picture_file
from dig_jax.training.report import RunReport
from dig_jax.training.schedule import Job, schedule
from dig_jax.training.scoring import TrainingScores
from dig_jax.training.setup import TrainingSetup
from dig_jax.training.stop import Interrupted, StopSignal
from dig_jax.training.storage import Storage


class Opened(NamedTuple):
    """What a run has open while it trains.

    Attributes:
        workdir: Where all of it is.
        storage: Its checkpoints.
        record: Where its time goes.
        writer: Of its metrics; None in all processes but the first.
        progress: What is seen of it.
        stop: The signal that ends it.
        report: Its page.
    """

    workdir: AnyPath
    storage: Storage
    record: GoodputFile
    writer: MetricWriter | None
    progress: Progress
    stop: StopSignal
    report: RunReport


class Jobs:
    """What is done between steps, and when.

    Args:
        setup: The run's.
        opened: Where results go.
        log: Counts damaged records, which checkpoints say.
    """

    def __init__(self, setup: TrainingSetup, opened: Opened, log: TrainingLog) -> None:
        experiment, options, mesh = setup.experiment, setup.options, setup.mesh
        self._setup, self._opened, self._log = setup, opened, log
        self._when = schedule(options)
        drawing = of_training(experiment.sample)
        self._preview = Preview(experiment, drawing, options, mesh)
        self._scores = TrainingScores(
            experiment, experiment.evaluation, drawing, options, mesh
        )
        self._held_out = HeldOutLoss(setup)
        self._jobs = {
            # First, so that a run that goes on from this step's checkpoint has it.
            "held_out": Job("evaluation", self._measure_held_out),
            "snapshot": Job("checkpoint", self._save_snapshot),
            "save": Job("checkpoint", self._save),
            "draw": Job("drawing", self._draw),
            "evaluate": Job("evaluation", self._evaluate),
        }

    def due_after(self, step: int, *, stopped: bool) -> list[Job]:
        """The jobs after a step, in order; of a run that stops there, what is saved."""
        due = [name for name in self._jobs if self._when[name].has(step)]
        if stopped:
            due = [name for name in due if name == "snapshot"] + ["save"]
        jobs = [self._jobs[name] for name in due]
        shown = {"draw", "evaluate"} & set(due)
        return [*jobs, Job("drawing", self._plot)] if shown else jobs

    def _measure_held_out(self, state: TrainState, step: int) -> None:
        _, _, _, writer, progress, stop, _ = self._opened
        if not self._held_out.is_compiled:
            try:
                with progress.compiling("the held-out loss"), stop.at_once():
                    self._held_out.compile()
            except Interrupted:  # the next step is the last
                progress.message(f"step {step}: held-out loss not measured")
                return
        self._held_out.tell(state, writer, progress.message)

    def _save_snapshot(self, state: TrainState, step: int) -> None:
        self._opened.storage.save_snapshot(state)

    def _save(self, state: TrainState, step: int) -> None:
        meta = self._setup.meta(step, self._log.damaged_records)
        self._opened.storage.save(state, meta)

    def _draw(self, state: TrainState, step: int) -> None:
        _, _, _, writer, progress, stop, _ = self._opened
        progress.message(f"step {step}: drawing samples")
        if not self._preview.is_compiled:
            try:
                with progress.compiling("what draws them"), stop.at_once():
                    self._preview.compile(state)
            except Interrupted:  # the next step is the last
                progress.message(f"step {step}: not drawn")
                return
        grid = self._preview.draw(state, progress.message)
        if writer is not None and grid is not None:
            write_png(picture_file(self._opened.workdir, step), grid)
            writer.write_image("samples", step, grid)

    def _evaluate(self, state: TrainState, step: int) -> None:
        workdir, storage, _, writer, progress, _, _ = self._opened
        meta = self._setup.meta(step, self._log.damaged_records)
        self._scores.evaluate(state, meta, storage, writer, progress, workdir)

    def _plot(self, state: TrainState, step: int) -> None:
        if self._opened.writer is not None:
            plot_curves(self._opened.workdir)
            self._opened.report.write_if_cheap(self._opened.progress)
