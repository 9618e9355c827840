"""What a training run starts from: its parts, its data, its first or newest state."""

from collections.abc import Generator
from functools import cached_property
from typing import Any, NamedTuple

import jax

from dig_jax.data.loader import Batch, load_batches
from dig_jax.devices.agreement import check_agreement
from dig_jax.devices.sharding import (
    as_first_process_says,
    is_first_process,
    place_rows,
)
from dig_jax.errors import Findings, InputError
from dig_jax.evaluation import check_evaluation_options, check_scores
from dig_jax.experiment import Experiment, check_same_run
from dig_jax.experiment.images import named_after, open_dataset
from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import ImageSource
from dig_jax.options import SECTIONS
from dig_jax.reporting.graph_drawing import draw_graph
from dig_jax.reporting.other_writers import check_writers
from dig_jax.sampling.choices import check_sample_options
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.run_config import find_saved_config, restore_run_config
from dig_jax.storage.state import TrainState
from dig_jax.training.activities import Activities
from dig_jax.training.beginning import (
    check_beginning,
    read_beginning,
    tell_beginning,
)
from dig_jax.training.clean import shown_record
from dig_jax.training.environment import (
    CODE,
    COMPUTING_PACKAGES,
    describe_environment,
    describe_resume,
)
from dig_jax.training.programs import create_programs
from dig_jax.training.scoring import check_keep_best

# Keys that each machine of a run may have its own values of: paths, and how it reads.
OF_ONE_MACHINE = (
    "data.data_dir",
    "data.num_threads",
    "data.num_workers",
    "evaluation.cache_dir",
    "evaluation.inception_weights",
    "evaluation.reference",
    "logging.tensorboard_dir",
    "sample.guide",
)
SECONDS_TO_AGREE = 600.0
"""For processes whose data sets take longer to open than others'."""


class Restored(NamedTuple):
    """A state to go on from.

    Attributes:
        state: The state.
        damaged_records: Records that were met up to it and could not be read; None if
            nobody counted.
        how: Whether the run goes on exactly (`describe_resume`); "" at its start.
    """

    state: TrainState
    damaged_records: int | None
    how: str = ""


def check_training(experiment: Experiment) -> tuple[ImageSource, ImageSource | None]:
    """Training and held-out images, if all that needs no program can work.

    Raises:
        InputError: All that cannot.
    """
    findings, source, held_out = Findings(), None, None
    with findings.noting():
        check_evaluation_options(experiment.evaluation)
    with findings.noting():
        check_writers(experiment.logging)
    with findings.noting():
        source = open_dataset(experiment, "train")
    if experiment.training.held_out_every:
        with findings.noting():
            held_out = open_dataset(experiment, "test")
    if source is not None:
        experiment = named_after(experiment, source)
        conditional = experiment.backbone.num_classes > 0
        scored = experiment.evaluation
        with findings.noting():
            if experiment.training.evaluate_every:
                check_scores(scored, source)
        with findings.noting():
            check_keep_best(
                experiment.training, scored, source, conditional=conditional
            )
    with findings.noting():
        check_sample_options(experiment, experiment.sample)
    findings.raise_all()
    assert source is not None
    return source, held_out


def check_workdir(
    experiment: Experiment, workdir: AnyPath, *, write: bool
) -> list[str]:
    """What differs from the run in a workdir, if there is one, a line for each key.

    Args:
        experiment: What is to be trained there.
        workdir: The run's.
        write: Whether a config.json that is missing is written again.

    Raises:
        InputError: It holds a run of another configuration.
    """
    changes: list[str] = []
    saved = find_saved_config(workdir)
    if saved is not None or (workdir / "config.json").exists():
        before = restore_run_config(workdir, write=write)
        changes = check_same_run(before, experiment.config, workdir)
    if saved is not None:
        check_same_run(saved.config, experiment.config, workdir)
    return changes


class TrainingSetup:
    """An experiment and its workdir, checked and ready; nothing is written yet.

    With several processes each makes one, of the same experiment and workdir.

    Attributes:
        experiment: What is trained.
        workdir: Where the run is kept.
        mesh: The devices.
        programs: What is compiled for them.
        options: The training section.
        changes: What differs from the run in the workdir, a line for each key.
        source: Training images.
        held_out: Test images, where training.held_out_every asks for their loss.
        begun_from: Where the first parameters are from, if from another run (see
            `read_beginning`).

    Raises:
        InputError: What cannot work.
    """

    def __init__(self, experiment: Experiment, workdir: AnyPath) -> None:
        self.source, self.held_out = check_training(experiment)
        self.experiment, self.workdir = named_after(experiment, self.source), workdir
        self.mesh = experiment.mesh
        self.programs = create_programs(self.experiment, self.mesh)
        self.options = self.programs.options
        self.changes = check_workdir(self.experiment, workdir, write=is_first_process())
        self.begun_from = None
        self._otherwise = check_beginning(self.experiment, workdir)
        check_agreement(self._what_all_share(), SECONDS_TO_AGREE)

    def restore(self, checkpoints: Checkpoints, doing: Activities) -> Restored:
        """The newest state, or the first one; its time is noted and shown."""
        if not as_first_process_says(checkpoints.latest_step() is not None):
            with doing("start", "creating parameters"):
                state = jax.block_until_ready(self._first_state())
            return Restored(state, 0)
        with doing("checkpoint", "reading the checkpoint"):
            state, meta = checkpoints.restore(self.programs.abstract_state)
        saved, now = meta["data"], self._data_identity()
        if saved != now:
            raise InputError(
                f"The run in {self.workdir} was trained on other data: {saved}, now "
                f"{now}. Use another --workdir, or the same data."
            )
        self.begun_from = meta.get("init_from")
        # Older versions did not count damaged records.
        how = describe_resume(meta, self._environment)
        return Restored(state, meta.get("damaged_records"), how)

    def _first_state(self) -> TrainState:
        """The state before the first step, with the parameters that it begins with."""
        place, params = self.options.init_from, None
        if place:
            abstract = self.programs.abstract_state.params
            params, self.begun_from = read_beginning(place, abstract)
        return self.programs.create_state(params)

    def batches(
        self, start: int
    ) -> Generator[tuple[jax.Array, jax.Array, int], None, None]:
        """Images and labels of steps start + 1, ..., and how many were damaged."""
        data = self.experiment.data
        loader = load_batches(
            self.source,
            batch_size=self.options.batch_size,
            seed=self.experiment.seed,
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

    def place(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Images and labels spread over the devices, from this process's rows."""
        return place_rows(self.mesh, (batch["image"], batch["label"]))

    def meta(self, step: int, damaged_records: int | None) -> dict[str, Any]:
        """What a checkpoint says beside its arrays."""
        return {
            "config": self.experiment.config.to_dict(),
            "data": self._data_identity(),
            "environment": self._environment,
            "init_from": self.begun_from,
            "samples_seen": step * self.options.batch_size,
            "damaged_records": damaged_records,
        }

    def describe(self, restored: Restored) -> str:
        """The run in a few lines, as it starts or goes on."""
        source, state = self.source, restored.state
        backbone = self.experiment.backbone_options.name
        start = int(state.step)
        num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        devices, processes = self.mesh.devices.flat, jax.process_count()
        together = f" in {processes} processes" if processes > 1 else ""
        resumed = f"resumed at step {start}" if start else "from the start"
        lines = [
            f"{backbone}, {num_params / 1e6:.2f}M parameters, on {len(source)} images "
            f"of {source.name}, {len(devices)} {devices[0].platform} device(s)"
            f"{together}; {resumed}, workdir {self.workdir}"
        ]
        if self.mesh.size > 1:
            sizes = ", ".join(f"{name} {n}" for name, n in self.mesh.shape.items())
            lines.append(f"  mesh: {sizes}")
        if self.options.posthoc_ema:
            num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.power_ema))
            lines.append(
                f"  post-hoc EMA: {num_bytes / 1e6:.1f} MB in posthoc_ema/ every "
                f"{self.options.posthoc_every} steps"
            )
        if self.begun_from is not None:
            lines.append(f"  began with {tell_beginning(self.begun_from)}")
        lines += [f"  otherwise than there: {w}" for w in [self._otherwise] if w]
        lines += [f"  {restored.how}"] if restored.how else []
        lines += [f"  changed: {change}" for change in self.changes]
        return "\n".join(lines)

    def draw_graph(self) -> None:
        """The backbone's graph over an image, as graph.png."""
        graph = self.experiment.backbone.graph
        if not is_first_process() or graph is None:
            return
        if not (self.workdir / "graph.png").exists():
            image = shown_record(self.source[0]["image"], self.experiment.data)
            draw_graph(graph, self.workdir / "graph.png", image)

    def _what_all_share(self) -> dict[str, Any]:
        """What the processes of a run must have alike, by name."""
        keys = {
            f"{section}.{key}": value
            for section in SECTIONS
            for key, value in self.experiment.section(section).items()
        }
        return {
            **{key: value for key, value in keys.items() if key not in OF_ONE_MACHINE},
            "seed": self.experiment.seed,
            **{f"data set's {k}": v for k, v in self._data_identity().items()},
            **{name: self._environment[name] for name in (CODE, *COMPUTING_PACKAGES)},
        }

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return describe_environment(self.experiment, self.mesh)

    def _data_identity(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "num_records": len(self.source),
            "fingerprint": self.source.fingerprint,
        }
