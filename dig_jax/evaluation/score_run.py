"""Draw, describe, score, record: what every evaluation of a run does."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dig_jax.errors import InputError
from dig_jax.evaluation.evaluator import Evaluation, Evaluator
from dig_jax.evaluation.features import OnProgress
from dig_jax.evaluation.options import check_evaluation_options
from dig_jax.evaluation.records import append_record, format_record, mean_record
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, make_folder
from dig_jax.files.shown import say
from dig_jax.interfaces import LabelledImages
from dig_jax.options import EvaluationOptions
from dig_jax.reporting.progress import StageProgress
from dig_jax.sampling.drawing import Drawing, Drawn
from dig_jax.storage.workdir_lock import EVALUATE, only_run


def create_evaluator(
    experiment: Experiment,
    options: EvaluationOptions | None = None,
    *,
    silent: bool = False,
) -> Evaluator:
    """What scores images against an experiment's data set.

    Args:
        experiment: Names the data set.
        options: What is scored; as the experiment says by default.
        silent: Whether nobody is told of long work.

    Raises:
        InputError: Unknown metric, or a file that is named and not there.
    """
    checked = check_evaluation_options(options or experiment.evaluation)
    on_progress: OnProgress | None = None if silent else StageProgress()
    return Evaluator(experiment, checked, experiment.mesh, on_progress)


def score_run(
    drawing: Drawing,
    evaluator: Evaluator,
    workdir: AnyPath | None,
    *,
    seeds: Sequence[int],
    silent: bool = False,
) -> list[dict[str, Any]]:
    """Draw and score the images of each seed.

    Args:
        drawing: Who draws.
        evaluator: Who scores.
        workdir: Where the images are looked for, and they and the records are kept;
            None: nothing is kept.
        seeds: One or more.
        silent: Whether nobody is told of it.

    Returns:
        A record of each seed, and then, of several, that of their mean and deviation.

    Raises:
        InputError: So many images cannot be scored, or something is missing; or another
            process evaluates in this workdir.
    """
    records = []
    with contextlib.ExitStack() as opened:
        if workdir is not None:
            make_folder(workdir)
            opened.enter_context(only_run(workdir, EVALUATE))
        evaluator.check(drawing.sampler.options.num_images)
        for seed in seeds:
            drawing = drawing.with_seed(seed)
            if workdir is None:
                drawn = drawing.draw()
            else:
                drawn = drawing.find_or_draw(workdir, silent=silent)
            records.append(score_drawn(drawn, evaluator).record)
            keep_record(records[-1], workdir, silent=silent)
        if len(records) > 1:
            if not silent:
                say(f"Mean and standard deviation over {len(records)} seeds:")
            records.append(mean_record(records))
            keep_record(records[-1], workdir, silent=silent)
    return records


def score_drawn(
    drawn: Drawn, evaluator: Evaluator, *, draws: bool = True
) -> Evaluation:
    """The scores of images; see `Evaluator.evaluate`."""
    labels = drawn.labels
    if labels is None:
        labels = np.zeros(len(drawn.images), np.int32)
    images = LabelledImages(drawn.images, labels)
    return evaluator.evaluate(images, drawn.provenance, draws=draws)


def keep_record(
    record: dict[str, Any], workdir: AnyPath | None, *, silent: bool = False
) -> None:
    """Show a record, and add it to a workdir's eval/scores.jsonl, if there is one."""
    path = None if workdir is None else append_record(workdir, record)
    if not silent:
        say(format_record(record))
        if path is not None:
            say(f"  recorded in {path}")


def choose_seeds(seeds: int | Sequence[int], first: int) -> Sequence[int]:
    """Seeds by their number or one by one.

    Raises:
        InputError: None, or one that is no whole number from 0 on, or the same twice.
    """
    chosen = range(first, first + seeds) if isinstance(seeds, int) else seeds
    whole = all(isinstance(seed, int) and seed >= 0 for seed in chosen)
    if not (chosen and whole and len(set(chosen)) == len(chosen)):
        raise InputError(
            "seeds must be how many (1 or more), or different whole numbers from 0 on, "
            f"got {seeds!r}."
        )
    return chosen
