"""The training of a run, from its configuration to its pictures."""

import contextlib
from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dig_jax.config import (
    call_with_section,
    check_same_run,
    load_run_config,
    save_run_config,
)
from dig_jax.data.loader import Batch, load_batches
from dig_jax.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError
from dig_jax.evaluation import create_evaluation_options
from dig_jax.experiment import create_experiment, open_dataset
from dig_jax.files import AnyPath, make_folder, open_workdir
from dig_jax.generation import create_sample_options
from dig_jax.graphs.drawing import draw_graph
from dig_jax.images import write_png
from dig_jax.sharding import (
    MeshOptions,
    as_first_process_says,
    check_divides,
    create_mesh,
    is_first_process,
    make_sum_and_max,
    place_rows,
    replicated,
)
from dig_jax.training.checkpoints import Checkpoints
from dig_jax.training.environment import describe_environment, describe_resume
from dig_jax.training.goodput import Goodput, GoodputFile
from dig_jax.training.log import TrainingLog
from dig_jax.training.metric_writer import MetricWriter, read_metrics
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.options import complete_config, create_training_options
from dig_jax.training.plots import plot_diversity, plot_loss, plot_scores
from dig_jax.training.preview import Preview, without_guide
from dig_jax.training.profile import Profiler, ProfileSteps, check_profile_steps
from dig_jax.training.progress import Progress
from dig_jax.training.scoring import TrainingScores, check_keep_best
from dig_jax.training.state import TrainState
from dig_jax.training.step import create_state, make_measure_diversity, make_train_step
from dig_jax.training.stop import AgreedStop, StopSignal
from dig_jax.training.storage import Storage
from dig_jax.training.watchdog import Watchdog
from dig_jax.training.workdir_lock import only_trainer

DIVERSITY_IMAGES = 16


def train(
    config: ConfigDict,
    workdir: str | AnyPath,
    *,
    profile_steps: ProfileSteps | None = None,
) -> int:
    """Train, from the workdir's newest checkpoint if it has one.

    Args:
        config: The run's configuration.
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
        config, open_workdir(workdir), profile_steps=profile_steps, goodput=Goodput()
    )
    with Progress(run.options.num_steps, silent=not is_first_process()) as progress:
        return run.train(progress)


class TrainingRun:
    """A configuration and its workdir, checked and ready; nothing is written yet.

    With several processes each makes one, of the same configuration and workdir. All
    compute and save, and the first one writes everything else.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: AnyPath,
        *,
        profile_steps: ProfileSteps | None = None,
        goodput: Goodput | None = None,
    ) -> None:
        self.config, self.workdir = config, workdir
        self.profile_steps = profile_steps
        self.goodput = goodput or Goodput()
        self.resume = ""  # what was restored: exact or close
        self.experiment = create_experiment(config)
        self.options = create_training_options(config)
        check_profile_steps(profile_steps, self.options.num_steps)
        self.sample_options = create_sample_options(self.experiment)
        self.evaluation_options = create_evaluation_options(self.experiment)
        mesh_section = config.mesh.to_dict()
        self.mesh = create_mesh(call_with_section("mesh", MeshOptions, mesh_section))
        check_divides(self.mesh, self.options.batch_size, "training.batch_size")
        self.optimizer = call_with_section(
            "optimizer",
            create_optimizer,
            config.optimizer.to_dict(),
            num_steps=self.options.num_steps,
        )
        self.changes = []
        if (workdir / "config.json").exists():
            before = complete_config(load_run_config(workdir))
            self.changes = check_same_run(before, complete_config(config), workdir)
        self.source = open_dataset(self.experiment, "train")
        check_keep_best(self.options, self.evaluation_options, self.source)
        # Parameters, noise: the run's. The order of records follows the seed by itself.
        self.init_key, self.run_key = jax.random.split(jax.random.key(config.seed))

    def train(self, progress: Progress) -> int:
        """Train to the end or until a signal; returns the exit code (see `train`)."""
        make_folder(self.workdir)
        with StopSignal() as stop, only_trainer(self.workdir):
            return self._train(progress, stop)

    def _train(self, progress: Progress, stop: StopSignal) -> int:
        options, workdir = self.options, self.workdir
        with Storage(workdir, options) as storage:
            with progress.busy("starting"):
                state, damaged = self._restore_or_create(storage.checkpoints)
                storage.check_free_space(state)
            start = int(state.step)
            if is_first_process():
                save_run_config(self.config, workdir)
            progress.message(self._describe(start, state))
            progress.go_on_from(start)
            if start >= options.num_steps:
                progress.message(
                    f"Nothing to do: step {start} of {options.num_steps} is done."
                )
                return EXIT_DONE
            self._draw_graph()
            storage.forget_after(start)
            with contextlib.ExitStack() as opened:
                writer = None
                record = self._open_goodput_file(start)
                opened.enter_context(record)
                if is_first_process():
                    writer = opened.enter_context(
                        MetricWriter(workdir, resume_step=start or None)
                    )
                state = self._train_steps(
                    state,
                    storage,
                    writer,
                    record,
                    progress,
                    stop,
                    opened,
                    damaged_records=damaged,
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
            f"  curves      {workdir}/loss.png, diversity.png, "
            f"{'scores.png, ' if options.evaluate_every else ''}metrics.jsonl, "
            f"TensorBoard events\n"
            f"  checkpoint  {workdir}/checkpoints/{done}\n{record.summary()}"
        )
        return EXIT_DONE

    def create_state(self) -> TrainState:
        """The state before the first step, on the run's devices."""
        return self._create_state(self.init_key)

    @cached_property
    def _create_state(self) -> Callable[[jax.Array], TrainState]:
        return jax.jit(
            lambda key: create_state(
                self.experiment,
                self.optimizer,
                key,
                posthoc_ema=self.options.posthoc_ema,
            ),
            out_shardings=replicated(self.mesh),
        )

    def _restore_or_create(
        self, checkpoints: Checkpoints
    ) -> tuple[TrainState, int | None]:
        """The state to go on from, and how many damaged records were met up to it."""
        if not as_first_process_says(checkpoints.latest_step() is not None):
            return self.create_state(), 0
        abstract = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(
                a.shape, a.dtype, sharding=replicated(self.mesh)
            ),
            jax.eval_shape(self._create_state, self.init_key),
        )
        with self.goodput.spent("checkpoint"):
            state, meta = checkpoints.restore(abstract)
        self.resume = describe_resume(meta, self._environment)
        saved, now = meta["data"], self._data_identity()
        if saved != now:
            raise InputError(
                f"The run in {self.workdir} was trained on other data: {saved}, now "
                f"{now}. Use another --workdir, or the same data."
            )
        return state, meta.get("damaged_records")  # older versions did not count them

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return describe_environment(complete_config(self.config), self.mesh)

    def _data_identity(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "num_records": len(self.source),
            "fingerprint": self.source.fingerprint,
        }

    def _describe(self, start: int, state: TrainState) -> str:
        config, source = self.config, self.source
        num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        devices, processes = self.mesh.devices.flat, jax.process_count()
        together = f" in {processes} processes" if processes > 1 else ""
        resumed = f"resumed at step {start}" if start else "from the start"
        lines = [
            f"{config.backbone.name}, {num_params / 1e6:.2f}M parameters, on "
            f"{len(source)} images of {source.name}, {len(devices)} "
            f"{devices[0].platform} device(s){together}; {resumed}, workdir "
            f"{self.workdir}"
        ]
        if self.options.posthoc_ema:
            num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.power_ema))
            lines.append(
                f"  post-hoc EMA: {num_bytes / 1e6:.1f} MB in posthoc_ema/ every "
                f"{self.options.posthoc_every} steps"
            )
        lines += [f"  {self.resume}"] if self.resume else []
        lines += [f"  changed: {change}" for change in self.changes]
        return "\n".join(lines)

    def _draw_graph(self) -> None:
        graph = self.experiment.backbone.graph
        if not is_first_process() or graph is None:
            return
        if not (self.workdir / "graph.png").exists():
            image = np.asarray(self.source[0]["image"])
            draw_graph(graph, self.workdir / "graph.png", image)

    def _open_goodput_file(self, start: int) -> GoodputFile:
        """This start's record; every process has one, and the first one writes."""
        workdir = self.workdir if is_first_process() else None
        record = GoodputFile(workdir, self.goodput, start)
        if workdir is not None:  # a killed start may have logged more than it recorded
            logged = (row["step"] for row in read_metrics(workdir))
            record.done_before = max([record.done_before, *logged])
        return record

    def _batches(
        self, start: int
    ) -> Generator[tuple[jax.Array, jax.Array, int], None, None]:
        data = self.experiment.data
        loader = load_batches(
            self.source,
            batch_size=self.options.batch_size,
            seed=self.config.seed,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=data.num_threads,
            num_workers=data.num_workers,
            max_damaged_share=data.max_damaged_share,
        )
        try:
            for batch in loader:
                yield *self.place(batch), int(batch["damaged"])
        finally:
            loader.close()

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
        options, goodput = self.options, self.goodput
        batches = cleanup.enter_context(
            contextlib.closing(self._batches(int(state.step)))
        )
        with goodput.spent("data_wait"):
            image, label, damaged = next(batches)
        with goodput.spent("compile"), progress.compiling():
            train_step = self.compile_step(state, image, label)
            diversity = self._compile_diversity(state, image, label)
        drawing = without_guide(self.sample_options)
        preview = Preview(self.experiment, drawing, options, self.mesh)
        scores = TrainingScores(
            self.experiment, self.evaluation_options, drawing, options, self.mesh
        )
        start = int(state.step)
        log = TrainingLog(writer, progress, options, start, damaged_records)
        sum_and_max, agreed_stop = make_sum_and_max(self.mesh), AgreedStop()
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
            if options.diversity_every and (
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
                    storage.save(state, self._meta(step, log.damaged_records))
            if stopped is not None:
                stop.received = stopped
                break
            if draws or evaluates:
                with watchdog.paused():
                    goodput.turn_to("drawing")
                    if draws:
                        self._draw(preview, state, step, writer, progress)
                    if evaluates:
                        meta = self._meta(step, log.damaged_records)
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

    def place(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Images and labels spread over the devices, from this process's rows."""
        return place_rows(self.mesh, (batch["image"], batch["label"]))

    def compile_step(
        self, state: TrainState, image: jax.Array, label: jax.Array
    ) -> jax.stages.Compiled:
        """The training step, compiled for arguments like these; it takes the state."""
        step = make_train_step(
            self.experiment, self.optimizer, self.run_key, self.options.ema_decay
        )
        everywhere = replicated(self.mesh)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))
        return jitted.lower(state, image, label).compile()

    def _compile_diversity(
        self, state: TrainState, image: jax.Array, label: jax.Array
    ) -> jax.stages.Compiled:
        """The feature diversity of a batch's first images, compiled likewise."""
        measure = make_measure_diversity(self.experiment, self.run_key)

        def measure_first(
            state: TrainState, image: jax.Array, label: jax.Array
        ) -> jax.Array:
            shown = slice(DIVERSITY_IMAGES)
            return measure(state, image[shown], label[shown])

        jitted = jax.jit(measure_first, out_shardings=replicated(self.mesh))
        return jitted.lower(state, image, label).compile()

    def _meta(self, step: int, damaged_records: int | None) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "data": self._data_identity(),
            "environment": self._environment,
            "samples_seen": step * self.options.batch_size,
            "damaged_records": damaged_records,
        }
