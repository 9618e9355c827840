"""The training of a run, from its configuration to its pictures."""

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import jax

from dig_jax.config import config_to_json, save_run_config
from dig_jax.devices.compiling import compile_lowered
from dig_jax.devices.sharding import is_first_process, make_sum_and_max
from dig_jax.devices.watchdog import Watchdog
from dig_jax.errors import EXIT_DONE
from dig_jax.evaluation.curves import plot_curves
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, make_folder, open_workdir
from dig_jax.reporting import REPORT
from dig_jax.reporting.goodput import Goodput, GoodputFile
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.reporting.profile import Profiler, ProfileSteps, check_profile_steps
from dig_jax.reporting.progress import Progress
from dig_jax.storage.workdir_lock import only_trainer
from dig_jax.training.activities import Activities
from dig_jax.training.jobs import Jobs, Opened
from dig_jax.training.log import TrainingLog
from dig_jax.training.memory import explaining_shortage
from dig_jax.training.missed import make_up
from dig_jax.training.optimizer import count_updates, create_learning_rate
from dig_jax.training.report import RunReport, WriteReport
from dig_jax.training.schedule import schedule
from dig_jax.training.setup import Restored, TrainingSetup
from dig_jax.training.stop import AgreedStop, StopSignal, exit_code_of
from dig_jax.training.storage import Storage
from dig_jax.training.writers import open_writer


def train(
    experiment: Experiment,
    workdir: str | AnyPath,
    *,
    profile_steps: ProfileSteps | None = None,
    report: WriteReport | None = None,
) -> int:
    """Train, from the workdir's newest checkpoint if it has one.

    Args:
        experiment: What is trained.
        workdir: Where it is, or will be.
        profile_steps: Steps to trace into `profile/`; None for none.
        report: What writes its page, `dig_jax.report.write_report`; None for none.

    Returns:
        Exit code: done, or interrupted by Ctrl-C (a SIGTERM counts as done: the run is
        saved and goes on when it is started again).

    Raises:
        InputError: What cannot work, before anything is written.
        KeyboardInterrupt: Ctrl-C before the first step.
        NonFiniteError: Too many steps in a row whose loss or gradient was not finite.
    """
    run = TrainingRun(
        experiment,
        open_workdir(workdir),
        profile_steps=profile_steps,
        goodput=Goodput(),
        report=report,
    )
    with Progress(run.options.num_steps, silent=not is_first_process()) as progress:
        return run.train(progress)


def list_curves(workdir: AnyPath) -> str:
    """Those files of curves that a run has, with commas behind them."""
    names = ("loss.png", "diversity.png", "scores.png", "metrics.jsonl")
    return "".join(f"{name}, " for name in names if (workdir / name).is_file())


class TrainingRun:
    """A run that is set up, trained step by step.

    With several processes all compute and save, and the first one writes everything
    else.

    Attributes:
        received: The signal that came while it trained, be it after the last step.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: AnyPath,
        *,
        profile_steps: ProfileSteps | None = None,
        goodput: Goodput | None = None,
        report: WriteReport | None = None,
    ) -> None:
        self.setup = TrainingSetup(experiment, workdir)
        self.options, self.workdir = self.setup.options, workdir
        check_profile_steps(profile_steps, self.options.num_steps)
        self.profile_steps = profile_steps
        self.goodput = goodput or Goodput()
        self.received: signal.Signals | None = None
        self.report = RunReport(report if is_first_process() else None, workdir)

    def train(self, progress: Progress) -> int:
        """Train to the end or until a signal; returns the exit code (see `train`)."""
        make_folder(self.workdir)
        with (
            StopSignal() as stop,
            only_trainer(self.workdir),
            Storage(self.workdir, self.options) as storage,
        ):
            code = self._train(storage, progress, stop)
            self.received = stop.received
            return code

    def _train(self, storage: Storage, progress: Progress, stop: StopSignal) -> int:
        setup, doing = self.setup, Activities(self.goodput, progress)
        restored = setup.restore(storage.checkpoints, doing)
        storage.check_free_space(restored.state)
        start = int(restored.state.step)
        if is_first_process():
            save_run_config(setup.experiment.config, self.workdir)
        progress.message(setup.describe(restored))
        progress.go_on_from(start)
        with doing("evaluation"):
            made_up = make_up(setup, restored, storage, progress)
            if made_up and is_first_process():
                plot_curves(self.workdir)
                self.report.write(progress)
        if start >= self.options.num_steps:
            progress.message(nothing_to_do(start, self.options.num_steps))
            return EXIT_DONE
        setup.draw_graph()
        storage.forget_after(start)
        with (
            self._open_record(start) as record,
            self._open_writer(start, progress) as writer,
            explaining_shortage(setup.programs, progress),
        ):
            opened = Opened(
                self.workdir, storage, record, writer, progress, stop, self.report
            )
            done = self._train_steps(restored, opened)
            with doing("checkpoint"):
                storage.wait()
        self.report.write(progress)  # with how the record of its time ended
        return self._tell_end(done, opened)

    def _train_steps(self, restored: Restored, opened: Opened) -> int:
        """Take the steps that are left, or those until a signal; returns the last."""
        state, goodput, record = restored.state, self.goodput, opened.record
        start, last, stop = int(state.step), self.options.num_steps, opened.stop
        with (
            contextlib.closing(self.setup.batches(start)) as batches,
            Profiler(self.workdir, self.profile_steps) as profiler,
            contextlib.ExitStack() as compiled,
        ):
            with goodput.spent("data_wait"):
                image, label, damaged = next(batches)
            train_step, measure_diversity = self._compile(opened)
            log = self._start_log(restored, opened)
            jobs = Jobs(self.setup, opened, log)
            watchdog = compiled.enter_context(Watchdog(self.options.watchdog_seconds))
            doing = Activities(goodput, opened.progress, watchdog, log)
            when_diverse = schedule(self.options)["diversity"]
            sum_and_max, agreed_stop = make_sum_and_max(self.setup.mesh), AgreedStop()
            for step in range(start + 1, last + 1):
                record.turn_to_step(step)
                with profiler.step(step):
                    state, metrics = train_step(state, image, label)
                damaged, asked = sum_and_max(damaged, stop.received or 0)
                log.add(step, metrics, damaged)
                watchdog.step_done(step)
                record.step_done(log.done)
                if when_diverse.has(step):
                    log.add_diversity(step, measure_diversity(state, image, label))
                stopped = agreed_stop.after_step(asked)
                due = jobs.due_after(step, stopped=stopped is not None)
                if due:
                    log.finish()
                if profiler.is_due(step):
                    with doing("other"):
                        opened.progress.message(profiler.finish(metrics))
                for job in due:
                    with doing(job.kind):
                        job.do(state, step)
                if stopped is not None:
                    stop.received = stopped
                    break
                if step < last:
                    with doing("data_wait"):
                        image, label, damaged = next(batches)
            goodput.turn_to("other")
            record.step_done(log.done)
        return int(state.step)

    def _compile(self, opened: Opened) -> tuple[Callable, Callable]:
        """The training step, and the measure of feature diversity where it is due."""
        programs, doing = self.setup.programs, Activities(self.goodput, opened.progress)

        def compiled(what: str, lower: Callable[[], Any]) -> Callable:
            # Whatever was trained is saved.
            with doing("compile", what), opened.stop.at_once():
                return compile_lowered(lower())

        train_step = compiled("the training step", programs.lower_step)
        if not self.options.diversity_every:
            return train_step, lambda *_: None
        return train_step, compiled("feature diversity", programs.lower_diversity)

    def _start_log(self, restored: Restored, opened: Opened) -> TrainingLog:
        optimizer, num_steps = self.setup.experiment.optimizer, self.options.num_steps
        learning_rate = create_learning_rate(optimizer, num_steps=num_steps)
        return TrainingLog(
            opened.writer,
            opened.progress,
            self.options,
            int(restored.state.step),
            restored.damaged_records,
            learning_rate=jax.jit(learning_rate),
            num_updates=count_updates(restored.state.opt_state),
        )

    def _open_record(self, start: int) -> GoodputFile:
        """This start's record; every process has one, and the first one writes."""
        workdir = self.workdir if is_first_process() else None
        record = GoodputFile(workdir, self.goodput, start)
        if workdir is not None:  # a killed start may have logged more than it recorded
            logged = (row["step"] for row in read_metrics(workdir))
            record.done_before = max([record.done_before, *logged])
        return record

    def _open_writer(
        self, start: int, progress: Progress
    ) -> contextlib.AbstractContextManager[MetricWriter | None]:
        """What the first process writes metrics with."""
        if not is_first_process():
            return contextlib.nullcontext()
        experiment = self.setup.experiment
        writer = open_writer(experiment, self.workdir, start, progress.message)
        written = config_to_json(experiment.config)
        writer.write_text("configuration", start, written)
        return writer

    def _tell_end(self, done: int, opened: Opened) -> int:
        """Say what was done and where it is; returns the exit code."""
        options, workdir, stop = self.options, self.workdir, opened.stop
        if done < options.num_steps:
            assert stop.received is not None
            if is_first_process():
                plot_curves(workdir)
            opened.progress.message(
                f"Stopped by {stop.received.name} at step {done}, which is saved. The "
                f"same command goes on from there.\n{opened.record.summary()}"
            )
            return exit_code_of(stop.received)
        page = f"  report      {workdir}/{REPORT}\n"
        page = page if (workdir / REPORT).is_file() else ""
        opened.progress.message(
            f"Trained {done} steps.\n"
            f"  pictures    {workdir}/samples/\n"
            f"  curves      {workdir}/{list_curves(workdir)}TensorBoard events\n"
            f"  checkpoint  {workdir}/checkpoints/{done}\n{page}"
            f"{opened.record.summary()}"
        )
        return EXIT_DONE


def nothing_to_do(start: int, num_steps: int) -> str:
    """What is said where a run has all its steps, or more than it is asked for."""
    if start == num_steps:
        return f"Nothing to do: step {start} of {num_steps} is done."
    return (
        f"Nothing to do: {num_steps} steps are asked for (training.num_steps), and the "
        f"run has already done {start}."
    )
