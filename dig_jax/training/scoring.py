"""Scores of images drawn during training, and by them the best checkpoint."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh

from dig_jax.devices.sharding import as_first_process_says, is_first_process, local_mesh
from dig_jax.errors import InputError, NonFiniteError
from dig_jax.evaluation import (
    Evaluation,
    Evaluator,
    Score,
    is_better,
    read_records,
    read_scores,
    say_what_reference_lacks,
    score_families,
)
from dig_jax.evaluation.score_run import keep_record, score_drawn
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath
from dig_jax.files.shown import say
from dig_jax.interfaces import ImageSource, Params
from dig_jax.options import EvaluationOptions, SampleOptions, TrainingOptions
from dig_jax.reporting.metric_writer import SCORE, MetricWriter, read_metrics
from dig_jax.reporting.progress import Progress
from dig_jax.sampling.drawing import Drawing
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.state import TrainState
from dig_jax.training.schedule import schedule
from dig_jax.training.storage import Storage


def check_keep_best(
    training: TrainingOptions,
    evaluation: EvaluationOptions,
    source: ImageSource,
    *,
    conditional: bool = True,
) -> None:
    """Raise InputError unless the score to keep the best by is one that will be had."""
    families = score_families(evaluation, source, conditional=conditional)
    if training.keep_best and training.keep_best not in families:
        raise InputError(
            f"config.training.keep_best must name a score that is evaluated, without "
            f"its number of images, got {training.keep_best!r}. Available: "
            f"{', '.join(families) or 'none'}."
            f"{say_what_reference_lacks(evaluation, source)}"
        )


class TrainingScores:
    """Draws images at some steps, scores them, and keeps the best checkpoint.

    Scores of few images are taken too: they tell one step from another. With several
    processes all of them draw, and the first one scores.

    Args:
        experiment: The configuration's.
        evaluation: What is scored.
        sample_options: How images are drawn, but for their number.
        options: When, how many, and what is best.
        mesh: Devices.
    """

    def __init__(
        self,
        experiment: Experiment,
        evaluation: EvaluationOptions,
        sample_options: SampleOptions,
        options: TrainingOptions,
        mesh: Mesh,
    ) -> None:
        self._experiment, self._options = experiment, options
        self._evaluation = replace(evaluation, allow_few_images=True)
        self._sampling = replace(sample_options, num_images=options.evaluate_images)
        self._mesh = mesh
        self._stages = _Stages()
        self._best: tuple[dict[str, Any] | None] | None = None  # once it is read

    # Made for the first evaluation: a label rule may read the whole data set.
    @cached_property
    def _evaluator(self) -> Evaluator:
        mesh = self._mesh if jax.process_count() == 1 else local_mesh()
        return Evaluator(self._experiment, self._evaluation, mesh, self._stages.tell)

    @cached_property
    def _sampler(self) -> Sampler:
        return Sampler(self._experiment, self._sampling, self._mesh)

    def evaluate(
        self,
        state: TrainState,
        meta: dict[str, Any],
        storage: Storage,
        writer: MetricWriter | None,
        progress: Progress,
        workdir: AnyPath,
    ) -> None:
        """Score a state; what cannot be scored is said, and training goes on."""
        step = int(state.step)
        progress.message(f"step {step}: evaluating")
        self._stages.say = progress.message
        try:
            with progress.busy("evaluating"):
                found = self._draw_and_score(state.ema, step)
        except (InputError, NonFiniteError) as error:
            progress.message(f"step {step}: not evaluated: {error}")
            found = None
        scores: tuple[Score, ...] = ()
        if found is not None:
            keep_record(found.record, workdir, silent=True)
            scores = found.scores
            self._tell(step, scores, writer, progress)
        if self._options.keep_best:
            self._keep_best(state, meta, scores, storage, progress)

    def is_missing(self, step: int, storage: Storage, workdir: AnyPath) -> bool:
        """Whether a step's scores are due, and they or what follows them are not there.

        What the first process finds counts for all.
        """
        if not schedule(self._options)["evaluate"].has(step):
            return False
        best, missing = storage.read_best(), False  # which all processes read together
        if is_first_process():
            scores = _recorded_scores(workdir, step)
            missing = scores is None or (
                not _is_told(workdir, step, scores) or self._is_best(scores, best)
            )
        return as_first_process_says(missing)

    def make_up(
        self,
        state: TrainState,
        meta: dict[str, Any],
        storage: Storage,
        writer: MetricWriter | None,
        progress: Progress,
        workdir: AnyPath,
    ) -> None:
        """`evaluate`, but for what is recorded already: that is not drawn again."""
        step, scores = int(state.step), None
        if is_first_process():
            scores = _recorded_scores(workdir, step)
        if not as_first_process_says(scores is not None):
            self.evaluate(state, meta, storage, writer, progress, workdir)
            return
        scores = scores or ()
        if is_first_process() and not _is_told(workdir, step, scores):
            self._tell(step, scores, writer, progress)
        if self._options.keep_best:
            self._keep_best(state, meta, scores, storage, progress)

    def _tell(
        self,
        step: int,
        scores: tuple[Score, ...],
        writer: MetricWriter | None,
        progress: Progress,
    ) -> None:
        if writer is not None:
            writer.write(step, {f"{SCORE}{s.name}": s.value for s in scores})
        said = ", ".join(f"{s.name} {s.value:.4f}" for s in scores)
        progress.message(f"step {step}: {said}")

    def _is_best(
        self, scores: tuple[Score, ...], before: dict[str, Any] | None
    ) -> bool:
        kind = self._options.keep_best
        return bool(kind) and _better(kind, scores, before) is not None

    def _draw_and_score(self, params: Params, step: int) -> Evaluation | None:
        """Every process draws, and the first one scores."""
        wanted = self._sampling.num_images
        drawing = Drawing(self._experiment, self._sampler, params, step)
        drawn = drawing.draw(lambda done: self._stages.tell("drawn", done, wanted))
        if not is_first_process():
            return None
        return score_drawn(drawn, self._evaluator, draws=False)

    def _keep_best(
        self,
        state: TrainState,
        meta: dict[str, Any],
        scores: tuple[Score, ...],
        storage: Storage,
        progress: Progress,
    ) -> None:
        if self._best is None:  # later a save of it may be under way
            self._best = (storage.read_best(),)
        best = _better(self._options.keep_best, scores, self._best[0])
        if not as_first_process_says(best is not None):
            return
        storage.save_best(state, {**meta, "best": best})  # the first process's meta
        self._best = (best,)
        if best is not None:
            name = best["score"]
            progress.message(f"step {int(state.step)}: the best {name} so far, kept")


def _recorded_scores(workdir: AnyPath, step: int) -> tuple[Score, ...] | None:
    """Scores that training recorded at a step; None if it came to none.

    Training takes no digest of the parameters, and --mode=evaluate always does.
    """
    for record in reversed(read_records(workdir)):
        samples = record["samples"]
        digest = samples.get("parameters_digest")
        if samples.get("checkpoint_step") == step and digest == "":
            return read_scores(record)
    return None


def _is_told(workdir: AnyPath, step: int, scores: tuple[Score, ...]) -> bool:
    """Whether metrics.jsonl has these scores of a step."""
    written = {
        name for row in read_metrics(workdir) if row["step"] == step for name in row
    }
    return all(f"{SCORE}{score.name}" in written for score in scores)


class _Stages:
    """Says how far long work has come, every ten seconds.

    Attributes:
        say: What prints a line.
    """

    _SECONDS = 10.0

    def __init__(self) -> None:
        self.say: Callable[[str], None] = say
        self._what, self._told = "", 0.0

    def tell(self, what: str, done: int, total: int) -> None:
        """Told that `done` of `total` are done in the stage `what`."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._told = what, now
        elif now - self._told >= self._SECONDS:
            self.say(f"  {what} {done}/{total}")
            self._told = now


def _better(
    kind: str, scores: tuple[Score, ...], before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What to say of a checkpoint with these scores; None if it is not the best."""
    score = next((score for score in scores if score.kind == kind), None)
    if score is None:
        return None
    if (
        before is not None
        and before["score"] == score.name
        and not is_better(score, before["value"])
    ):
        return None
    return {"score": score.name, "value": score.value}
