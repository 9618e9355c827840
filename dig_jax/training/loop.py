"""The training of a run, from its configuration to its pictures."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from dig_jax.config import (
    call_with_section,
    check_same_run,
    load_run_config,
    save_run_config,
)
from dig_jax.data.loader import load_batches
from dig_jax.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    InputError,
    NonFiniteError,
)
from dig_jax.evaluation import (
    SampleOptions,
    Sampler,
    check_sample_options,
    create_evaluation_options,
    create_sample_options,
    sample_grid,
)
from dig_jax.experiment import Experiment, create_experiment, open_dataset
from dig_jax.graphs.drawing import draw_graph
from dig_jax.images import write_png
from dig_jax.sharding import (
    MeshOptions,
    batch_sharded,
    check_divides,
    create_mesh,
    replicated,
)
from dig_jax.training.checkpoints import Checkpoints
from dig_jax.training.metric_writer import MetricWriter, plot_loss
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.progress import Progress
from dig_jax.training.state import TrainState
from dig_jax.training.step import create_state, make_measure_diversity, make_train_step
from dig_jax.training.stop import StopSignal

# Steps handed to the device before the host looks at the oldest one's metrics: enough
# that the device never waits, few enough that progress is true.
STEPS_IN_FLIGHT = 3
MAX_BAD_STEPS = 10
DIVERSITY_IMAGES = 16


@dataclass(frozen=True)
class TrainingOptions:
    """How long a run trains, and what it writes on the way.

    Attributes:
        batch_size: Images in a global batch, over all devices.
        num_steps: Steps of the whole run.
        ema_decay: Decay of the average of the parameters, in [0, 1).
        log_every: Steps between two lines of metrics.
        diversity_every: Steps between two measurements of feature diversity; 0: never.
        sample_every: Steps between two pictures of samples; 0: at the end alone.
        samples_per_class: Images of each class in such a picture.
        checkpoint_every: Steps between two checkpoints; the last step is saved anyway.
        keep_checkpoints: Number of newest checkpoints kept.
    """

    batch_size: PositiveInt = 128
    num_steps: PositiveInt = 500_000
    ema_decay: NonNegativeFloat = 0.9999
    log_every: PositiveInt = 100
    diversity_every: NonNegativeInt = 1000
    sample_every: NonNegativeInt = 10_000
    samples_per_class: PositiveInt = 10
    checkpoint_every: PositiveInt = 5000
    keep_checkpoints: PositiveInt = 3


def create_training_options(config: ConfigDict) -> TrainingOptions:
    """The training section, checked.

    Raises:
        InputError: A value of a wrong type or range.
    """
    section = config.training.to_dict()
    options = call_with_section("training", TrainingOptions, section)
    if options.ema_decay >= 1:
        raise InputError(
            f"config.training.ema_decay must lie in [0, 1), got {options.ema_decay}."
        )
    return options


def train(config: ConfigDict, workdir: str | Path) -> int:
    """Train, from the workdir's newest checkpoint if it has one.

    Returns:
        Exit code: done, or interrupted by Ctrl-C (a SIGTERM counts as done: the run is
        saved and goes on when it is started again).

    Raises:
        InputError: What cannot work, before anything is written.
        NonFiniteError: Too many steps in a row whose loss or gradient was not finite.
    """
    run = TrainingRun(config, Path(workdir))
    with Progress(run.options.num_steps) as progress:
        return run.train(progress)


class TrainingRun:
    """A configuration and its workdir, checked and ready; nothing is written yet."""

    def __init__(self, config: ConfigDict, workdir: Path) -> None:
        self.config, self.workdir = config, workdir
        self.experiment = create_experiment(config)
        self.options = create_training_options(config)
        self.sample_options = create_sample_options(self.experiment)
        create_evaluation_options(self.experiment)
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
            self.changes = check_same_run(load_run_config(workdir), config, workdir)
        self.source = open_dataset(self.experiment, "train")
        # Parameters, noise: the run's. The order of records follows the seed by itself.
        self.init_key, self.run_key = jax.random.split(jax.random.key(config.seed))

    def train(self, progress: Progress) -> int:
        """Train to the end or until a signal; returns the exit code (see `train`)."""
        with StopSignal() as stop:
            return self._train(progress, stop)

    def _train(self, progress: Progress, stop: StopSignal) -> int:
        self.workdir.mkdir(parents=True, exist_ok=True)
        options, workdir = self.options, self.workdir
        with Checkpoints(
            workdir / "checkpoints", keep=options.keep_checkpoints
        ) as checkpoints:
            with progress.busy("starting"):
                state = self._restore_or_create(checkpoints)
                checkpoints.check_free_space(state)
            start = int(state.step)
            save_run_config(self.config, workdir)
            progress.message(self._describe(start, state))
            progress.go_on_from(start)
            if start >= options.num_steps:
                progress.message(
                    f"Nothing to do: step {start} of {options.num_steps} is done."
                )
                return EXIT_DONE
            self._draw_graph()
            with MetricWriter(workdir, resume_step=start or None) as writer:
                state = self._train_steps(state, checkpoints, writer, progress, stop)
        done = int(state.step)
        if done < options.num_steps:
            assert stop.received is not None
            with contextlib.suppress(InputError):  # no loss has been logged yet
                plot_loss(workdir)
            progress.message(
                f"Stopped by {stop.received.name} at step {done}, which is saved. The "
                f"same command goes on from there."
            )
            return EXIT_INTERRUPTED if stop.received.name == "SIGINT" else EXIT_DONE
        progress.message(
            f"Trained {done} steps.\n"
            f"  pictures    {workdir}/samples/\n"
            f"  curves      {workdir}/loss.png, metrics.jsonl, TensorBoard events\n"
            f"  checkpoint  {workdir}/checkpoints/{done}"
        )
        return EXIT_DONE

    def _restore_or_create(self, checkpoints: Checkpoints) -> TrainState:
        create = jax.jit(
            lambda key: create_state(self.experiment, self.optimizer, key),
            out_shardings=replicated(self.mesh),
        )
        if checkpoints.latest_step() is None:
            return create(self.init_key)
        abstract = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(
                a.shape, a.dtype, sharding=replicated(self.mesh)
            ),
            jax.eval_shape(create, self.init_key),
        )
        state, meta = checkpoints.restore(abstract)
        saved, now = meta["data"], self._data_identity()
        if saved != now:
            raise InputError(
                f"The run in {self.workdir} was trained on other data: {saved}, now "
                f"{now}. Use another --workdir, or the same data."
            )
        return state

    def _data_identity(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "num_records": len(self.source),
            "fingerprint": self.source.fingerprint,
        }

    def _describe(self, start: int, state: TrainState) -> str:
        config, source = self.config, self.source
        num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        devices = self.mesh.devices.flat
        resumed = f"resumed at step {start}" if start else "from the start"
        lines = [
            f"{config.backbone.name}, {num_params / 1e6:.2f}M parameters, on "
            f"{len(source)} images of {source.name}, {len(devices)} "
            f"{devices[0].platform} device(s); {resumed}, workdir {self.workdir}"
        ]
        lines += [f"  changed: {change}" for change in self.changes]
        return "\n".join(lines)

    def _draw_graph(self) -> None:
        graph = self.experiment.backbone.graph
        if graph is not None and not (self.workdir / "graph.png").exists():
            image = np.asarray(self.source[0]["image"])
            draw_graph(graph, self.workdir / "graph.png", image)

    def _batches(self, start: int) -> Iterator[tuple[jax.Array, jax.Array]]:
        data = self.experiment.data
        loader = load_batches(
            self.source,
            batch_size=self.options.batch_size,
            seed=self.config.seed,
            start_step=start,
            num_threads=data.num_threads,
            num_workers=data.num_workers,
        )
        sharding = batch_sharded(self.mesh)
        try:
            for batch in loader:
                yield jax.device_put((batch["image"], batch["label"]), sharding)
        finally:
            loader.close()

    def _train_steps(
        self,
        state: TrainState,
        checkpoints: Checkpoints,
        writer: MetricWriter,
        progress: Progress,
        stop: StopSignal,
    ) -> TrainState:
        options = self.options
        batches = self._batches(int(state.step))
        image, label = next(batches)
        shown = slice(DIVERSITY_IMAGES)
        with progress.compiling():
            train_step = self._compile(state, image, label)
            measure = make_measure_diversity(self.experiment, self.run_key)
            diversity = (
                jax.jit(measure).lower(state, image[shown], label[shown]).compile()
            )
        preview = _Preview(self.experiment, self.sample_options, options, self.mesh)
        log = _Log(writer, progress, options, int(state.step))
        for step in range(int(state.step) + 1, options.num_steps + 1):
            state, metrics = train_step(state, image, label)
            log.add(step, metrics)
            last = step == options.num_steps
            if options.diversity_every and (
                step == 1 or step % options.diversity_every == 0
            ):
                values = diversity(state, image[shown], label[shown])
                log.add_diversity(step, values)
            saves = step % options.checkpoint_every == 0 or last
            draws = last or (options.sample_every and step % options.sample_every == 0)
            if saves or draws or stop.received:
                log.finish()
            if saves or stop.received:
                checkpoints.save(state, self._meta(step))
            if stop.received:
                break
            if draws:
                progress.message(f"step {step}: drawing samples")
                grid = preview.draw(state)
                write_png(self.workdir / "samples" / f"step_{step}.png", grid)
                writer.write_image("samples", step, grid)
                plot_loss(self.workdir)
                log.restart_clock(step)
            if not last:
                image, label = next(batches)
        batches.close()  # type: ignore[attr-defined]
        return state

    def _compile(self, state: TrainState, image: jax.Array, label: jax.Array):
        step = make_train_step(
            self.experiment, self.optimizer, self.run_key, self.options.ema_decay
        )
        everywhere = replicated(self.mesh)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(everywhere, everywhere))
        return jitted.lower(state, image, label).compile()

    def _meta(self, step: int) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "data": self._data_identity(),
            "samples_seen": step * self.options.batch_size,
        }


class _Log:
    """Metrics on their way from the device to the progress bar and the writer.

    Looks only at steps that are done or nearly so, so that the device always has work.
    """

    def __init__(
        self,
        writer: MetricWriter,
        progress: Progress,
        options: TrainingOptions,
        start: int,
    ) -> None:
        self._writer, self._progress, self._options = writer, progress, options
        self._in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
        self._since: list[dict[str, float]] = []
        self._diversity: dict[int, jax.Array] = {}
        self._shown_rate: float | None = None
        self.restart_clock(start)

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._in_flight.append((step, metrics))
        while len(self._in_flight) > STEPS_IN_FLIGHT:
            self._take(*self._in_flight.popleft())

    def add_diversity(self, step: int, values: jax.Array) -> None:
        self._diversity[step] = values

    def finish(self) -> None:
        """Wait for every step handed over."""
        while self._in_flight:
            self._take(*self._in_flight.popleft())

    def restart_clock(self, step: int) -> None:
        """Leave what happened until now, after this step, out of images/s."""
        self._clock, self._clock_step = time.perf_counter(), step

    def _take(self, step: int, metrics: dict[str, jax.Array]) -> None:
        values = {name: float(v) for name, v in jax.device_get(metrics).items()}
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
            self._writer.write(
                step,
                {
                    f"feature_diversity/block_{block:02d}": float(value)
                    for block, value in enumerate(per_block)
                },
            )
        rate, seconds = self._rate(step)
        if seconds > 1 or self._shown_rate is None:  # a shorter time says little
            self._shown_rate = rate
        self._progress.update(step, values["loss"], self._shown_rate)
        if step % self._options.log_every == 0 or step == self._options.num_steps:
            means = {
                name: float(np.mean([values[name] for values in self._since]))
                for name in ("loss", "grad_norm", "update_norm")
            }
            skipped = sum(values["bad_steps"] > 0 for values in self._since)
            self._writer.write(
                step, {**means, "images_per_second": rate, "skipped_steps": skipped}
            )
            self._since = []
            self.restart_clock(step)

    def _rate(self, step: int) -> tuple[float, float]:
        """Images per second, and the seconds that it is an average over."""
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        images = (step - self._clock_step) * self._options.batch_size
        return images / seconds, seconds


class _Preview:
    """Pictures of samples during training, from the same noise each time."""

    def __init__(
        self,
        experiment: Experiment,
        sample_options: SampleOptions,
        options: TrainingOptions,
        mesh: Mesh,
    ) -> None:
        num_rows = min(experiment.backbone.num_classes or 10, 10)
        sample_options = SampleOptions(
            solver=sample_options.solver,
            num_steps=sample_options.num_steps,
            t_end=sample_options.t_end,
            num_images=num_rows * options.samples_per_class,
            labels=(
                tuple(range(num_rows))
                if experiment.backbone.num_classes
                else "balanced"
            ),
            batch_size=sample_options.batch_size,
        )
        check_sample_options(experiment, sample_options)
        self._sampler = Sampler(experiment, sample_options, mesh)
        self._columns = options.samples_per_class

    def draw(self, state: TrainState) -> np.ndarray:
        images = self._sampler.draw(state.ema)
        return sample_grid(images, self._sampler.labels, self._columns)
