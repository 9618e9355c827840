"""The training of a run, from its configuration to its pictures."""

import contextlib

from dig_jax.config import save_run_config
from dig_jax.devices.sharding import is_first_process, make_sum_and_max
from dig_jax.devices.watchdog import Watchdog
from dig_jax.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, make_folder, open_workdir
from dig_jax.files.workdir_lock import only_trainer
from dig_jax.reporting.goodput import Goodput, GoodputFile
from dig_jax.reporting.images import write_png
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.reporting.plots import plot_diversity, plot_loss, plot_scores
from dig_jax.reporting.profile import Profiler, ProfileSteps, check_profile_steps
from dig_jax.reporting.progress import Progress
from dig_jax.storage.state import TrainState
from dig_jax.training.log import TrainingLog
from dig_jax.training.memory import explaining_shortage
from dig_jax.training.preview import Preview, without_guide
from dig_jax.training.scoring import TrainingScores
from dig_jax.training.setup import TrainingSetup
from dig_jax.training.stop import AgreedStop, StopSignal
from dig_jax.training.storage import Storage


def train(
    experiment: Experiment,
    workdir: str | AnyPath,
    *,
    profile_steps: ProfileSteps | None = None,
) -> int:
    """Train, from the workdir's newest checkpoint if it has one.

    Args:
        experiment: What is trained.
        workdir: Where it is, or will be.
        profile_steps: Steps to trace into `profile/`; None for none.

    Returns:
        Exit code: done, or interrupted by Ctrl-C (a SIGTERM counts as done: the run is
        saved and goes on when it is started again).

    Raises:
        InputError: What cannot work, before anything is written.
        NonFiniteError: Too many steps in a row whose loss or gradient was not finite.
    """
    run = TrainingRun(
        experiment,
        open_workdir(workdir),
        profile_steps=profile_steps,
        goodput=Goodput(),
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
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: AnyPath,
        *,
        profile_steps: ProfileSteps | None = None,
        goodput: Goodput | None = None,
    ) -> None:
        self.setup = TrainingSetup(experiment, workdir)
        self.options, self.workdir = self.setup.options, workdir
        check_profile_steps(profile_steps, self.options.num_steps)
        self.profile_steps = profile_steps
        self.goodput = goodput or Goodput()

    def train(self, progress: Progress) -> int:
        """Train to the end or until a signal; returns the exit code (see `train`)."""
        make_folder(self.workdir)
        with StopSignal() as stop, only_trainer(self.workdir):
            return self._train(progress, stop)

    def _train(self, progress: Progress, stop: StopSignal) -> int:
        options, workdir = self.options, self.workdir
        with Storage(workdir, options) as storage:
            restored = self.setup.restore(storage.checkpoints, self.goodput, progress)
            state = restored.state
            storage.check_free_space(state)
            start = int(state.step)
            if is_first_process():
                save_run_config(self.setup.experiment.config, workdir)
            progress.message(self.setup.describe(restored))
            progress.go_on_from(start)
            if start >= options.num_steps:
                progress.message(
                    f"Nothing to do: step {start} of {options.num_steps} is done."
                )
                return EXIT_DONE
            self.setup.draw_graph()
            storage.forget_after(start)
            with contextlib.ExitStack() as opened:
                writer = None
                record = self._open_goodput_file(start)
                opened.enter_context(record)
                if is_first_process():
                    writer = opened.enter_context(
                        MetricWriter(workdir, resume_step=start or None)
                    )
                opened.enter_context(explaining_shortage(self.setup.programs, progress))
                state = self._train_steps(
                    state,
                    storage,
                    writer,
                    record,
                    progress,
                    stop,
                    opened,
                    damaged_records=restored.damaged_records,
                )
                with self.goodput.spent("checkpoint"):
                    storage.wait()
        done = int(state.step)
        if done < options.num_steps:
            assert stop.received is not None
            self._plot()
            progress.message(
                f"Stopped by {stop.received.name} at step {done}, which is saved. The "
                f"same command goes on from there.\n{record.summary()}"
            )
            return EXIT_INTERRUPTED if stop.received.name == "SIGINT" else EXIT_DONE
        progress.message(
            f"Trained {done} steps.\n"
            f"  pictures    {workdir}/samples/\n"
            f"  curves      {workdir}/{list_curves(workdir)}TensorBoard events\n"
            f"  checkpoint  {workdir}/checkpoints/{done}\n{record.summary()}"
        )
        return EXIT_DONE

    def _open_goodput_file(self, start: int) -> GoodputFile:
        """This start's record; every process has one, and the first one writes."""
        workdir = self.workdir if is_first_process() else None
        record = GoodputFile(workdir, self.goodput, start)
        if workdir is not None:  # a killed start may have logged more than it recorded
            logged = (row["step"] for row in read_metrics(workdir))
            record.done_before = max([record.done_before, *logged])
        return record

    def _train_steps(
        self,
        state: TrainState,
        storage: Storage,
        writer: MetricWriter | None,
        record: GoodputFile,
        progress: Progress,
        stop: StopSignal,
        cleanup: contextlib.ExitStack,
        *,
        damaged_records: int | None,
    ) -> TrainState:
        setup, options, goodput = self.setup, self.options, self.goodput
        batches = cleanup.enter_context(
            contextlib.closing(setup.batches(int(state.step)))
        )
        with goodput.spent("data_wait"):
            image, label, damaged = next(batches)
        with goodput.spent("compile"), progress.compiling("the training step"):
            train_step = setup.programs.lower_step().compile()
        diversity = None
        if options.diversity_every:
            with goodput.spent("compile"), progress.compiling("feature diversity"):
                diversity = setup.programs.lower_diversity().compile()
        experiment = setup.experiment
        drawing = without_guide(experiment.sample)
        preview = Preview(experiment, drawing, options, setup.mesh)
        scores = TrainingScores(
            experiment, experiment.evaluation, drawing, options, setup.mesh
        )
        start = int(state.step)
        log = TrainingLog(writer, progress, options, start, damaged_records)
        sum_and_max, agreed_stop = make_sum_and_max(setup.mesh), AgreedStop()
        profiler = cleanup.enter_context(Profiler(self.workdir, self.profile_steps))
        watchdog = cleanup.enter_context(Watchdog(options.watchdog_seconds))
        for step in range(start + 1, options.num_steps + 1):
            goodput.turn_to_step(step, record.done_before)
            with profiler.step(step):
                state, metrics = train_step(state, image, label)
            damaged, asked = sum_and_max(damaged, stop.received or 0)
            log.add(step, metrics, damaged)
            watchdog.step_done(step)
            record.step_done(log.done)
            last = step == options.num_steps
            if diversity is not None and (
                step == 1 or step % options.diversity_every == 0
            ):
                log.add_diversity(step, diversity(state, image, label))
            stopped = agreed_stop.after_step(asked)
            saves = stopped is not None or last or step % options.checkpoint_every == 0
            keeps = options.posthoc_ema and (last or step % options.posthoc_every == 0)
            draws = last or (options.sample_every and step % options.sample_every == 0)
            evaluates = scores.is_due(step)
            if saves or keeps or draws or evaluates:
                log.finish()
            if profiler.is_due(step):
                with goodput.spent("other"), watchdog.paused():
                    progress.message(profiler.finish(metrics))
            with goodput.spent("checkpoint"):
                if keeps:
                    storage.save_snapshot(state)
                if saves:
                    storage.save(state, setup.meta(step, log.damaged_records))
            if stopped is not None:
                stop.received = stopped
                break
            if draws or evaluates:
                with watchdog.paused():
                    goodput.turn_to("drawing")
                    if draws:
                        self._draw(preview, state, step, writer, progress)
                    if evaluates:
                        meta = setup.meta(step, log.damaged_records)
                        with goodput.spent("evaluation"):
                            scores.evaluate(
                                state, meta, storage, writer, progress, self.workdir
                            )
                    self._plot()
                log.restart_clock(step)
            if not last:
                goodput.turn_to("data_wait")
                image, label, damaged = next(batches)
        goodput.turn_to("other")
        record.step_done(log.done)
        return state

    def _draw(
        self,
        preview: Preview,
        state: TrainState,
        step: int,
        writer: MetricWriter | None,
        progress: Progress,
    ) -> None:
        progress.message(f"step {step}: drawing samples")
        if not preview.is_compiled:
            with progress.compiling("what draws them"):
                preview.compile(state)
        grid = preview.draw(state)
        if writer is not None:
            write_png(self.workdir / "samples" / f"step_{step}.png", grid)
            writer.write_image("samples", step, grid)

    def _plot(self) -> None:
        if not is_first_process():
            return
        for plot in (plot_loss, plot_diversity, plot_scores):
            with contextlib.suppress(InputError):  # nothing of it is logged yet
                plot(self.workdir)
