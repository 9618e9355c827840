"""Scores of images drawn during training, and by them the best checkpoint."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dig_jax.devices.sharding import as_first_process_says, is_first_process, local_mesh
from dig_jax.errors import InputError
from dig_jax.evaluation import (
    Evaluator,
    append_record,
    flat_scores,
    is_better,
    score_families,
    score_family,
)
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import ImageSource, LabelledImages, UInt8Images
from dig_jax.options import EvaluationOptions, SampleOptions, TrainingOptions
from dig_jax.reporting.metric_writer import SCORE, MetricWriter
from dig_jax.reporting.progress import Progress
from dig_jax.sampling.sampler import Sampler
from dig_jax.sampling.samples import describe_samples
from dig_jax.storage.state import TrainState
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

    def is_due(self, step: int) -> bool:
        """Whether a step is evaluated."""
        every = self._options.evaluate_every
        return bool(every) and (step % every == 0 or step == self._options.num_steps)

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
                wanted = self._sampling.num_images
                images = self._sampler.draw(
                    state.ema, lambda done: self._stages.tell("drawn", done, wanted)
                )
                record = self._score(images, step) if is_first_process() else None
        except InputError as error:
            progress.message(f"step {step}: not evaluated: {error}")
            record = None
        scores = {}
        if record is not None:
            append_record(workdir, record)
            flat = flat_scores(record)
            scores = {name: flat[name] for name in record["scores"]}
            if writer is not None:
                named = {f"{SCORE}{name}": value for name, value in scores.items()}
                writer.write(step, named)
            said = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            progress.message(f"step {step}: {said}")
        if self._options.keep_best:
            self._keep_best(state, meta, scores, storage, progress)

    def _score(self, images: UInt8Images, step: int) -> dict[str, Any]:
        labels = self._sampler.labels
        if labels is None:
            labels = np.zeros(len(images), np.int32)
        described = describe_samples(self._experiment, self._sampler.options, step)
        drawn = LabelledImages(images, labels)
        return self._evaluator.score(drawn, described, draws=False)

    def _keep_best(
        self,
        state: TrainState,
        meta: dict[str, Any],
        scores: dict[str, float],
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


class _Stages:
    """Says how far long work has come, every ten seconds.

    Attributes:
        say: What prints a line.
    """

    _SECONDS = 10.0

    def __init__(self) -> None:
        self.say: Callable[[str], None] = print
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
    family: str, scores: dict[str, float], before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What to say of a checkpoint with these scores; None if it is not the best."""
    named = [name for name in scores if score_family(name) == family]
    if not named:
        return None
    name = named[0]
    if (
        before is not None
        and before["score"] == name
        and not is_better(family, scores[name], before["value"])
    ):
        return None
    return {"score": name, "value": scores[name]}
