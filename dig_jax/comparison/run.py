"""All runs of a comparison; goes on where it stopped, in one process or several."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from dig_jax.comparison.equal_seconds import in_equal_seconds
from dig_jax.comparison.held_out import HeldOutLosses
from dig_jax.comparison.measure import Speed, measure_speeds
from dig_jax.comparison.plan import (
    Plan,
    Variant,
    create_plan,
    evaluation_steps,
)
from dig_jax.comparison.points import (
    read_divergence,
    read_points,
    run_folder,
    write_divergence,
    write_points,
)
from dig_jax.comparison.report import write_report
from dig_jax.comparison.same_plan import CONFIG, check_same_plan, has_more
from dig_jax.comparison.search import Search
from dig_jax.comparison.together import Task, in_turn, work_off
from dig_jax.comparison.training import train_to_end
from dig_jax.comparison.verdict import held_out_loss
from dig_jax.config.comparison import Comparison
from dig_jax.data.loader import read_images
from dig_jax.errors import EXIT_DONE, InputError, NonFiniteError
from dig_jax.evaluation import Evaluator, flat_scores
from dig_jax.evaluation.score_run import create_evaluator, score_drawn
from dig_jax.evaluation.told import tell_scores
from dig_jax.experiment.images import open_pixels
from dig_jax.files.checked_json import write_checked
from dig_jax.files.paths import CHECKPOINTS, AnyPath, check_writable, make_folder
from dig_jax.files.shown import printable, say
from dig_jax.interfaces import LabelledImages
from dig_jax.reporting.progress import StageProgress
from dig_jax.run import Run, load
from dig_jax.sampling.drawing import SAMPLES, Drawing
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.meta_file import finished_steps
from dig_jax.trained import load_guide

NUM_REAL = 256  # test images, of which a row is shown


def compare(
    comparison: Comparison,
    workdir: AnyPath,
    report: Callable[[AnyPath], object] = lambda workdir: None,
) -> int:
    """Train and evaluate every variant with every seed; write the tables and plots.

    Where there are learning rates to choose from, the search comes first. Each run is
    an ordinary run in `runs/VARIANT-SEED/` and goes on where it stopped; after each
    that is scored `compare.json`, `compare.md` and the plots are written anew. One that
    diverges is noted as that, and the others go on. Several processes in one workdir
    share the runs: this returns when the others have the rest.

    Args:
        comparison: What is compared.
        workdir: Where.
        report: Called with the workdir after that; it must not raise.

    Returns:
        Exit code: that of a training that was interrupted, else done.

    Raises:
        InputError: A variant that would not run, or JAX's processes are several;
            nothing is trained then.
    """
    if jax.process_count() > 1:
        raise InputError(
            "A comparison's processes share its workdir, not their devices: start each "
            "without --distributed (docs/compare_backbones.md)."
        )
    plan = create_plan(comparison, say)
    check_same_plan(comparison, workdir)
    if not (workdir / CONFIG).is_file():  # before any lock: a full disk leaves nothing
        make_folder(workdir)
        write_checked(workdir / CONFIG, comparison.written)
    speeds = _begin(comparison, plan, workdir)
    if plan.options.budget == "seconds" or plan.options.minutes:
        with in_turn(workdir):
            plan = in_equal_seconds(plan, speeds, workdir)
    losses = {v.name: HeldOutLosses(v.experiment) for v in plan.variants}
    search = Search(plan, workdir, say)
    code = search.run(losses)
    if code is not None:
        return code
    plan, tried, real = search.chosen(), search.records(), _real_images(plan)

    def write() -> None:
        with in_turn(workdir):
            if has_more(comparison, workdir):
                return  # whoever asked for more tells of it
            write_report(plan, speeds, workdir, tried, real)
            report(workdir)

    left = work_off(_Runs(plan, workdir, losses, write).tasks(), wait=False)
    if left.code is not None:
        return left.code
    if left.taken:
        say(f"The rest is others': {', '.join(left.taken)}")
    else:
        say(f"Compared: {workdir}/compare.md, compare.json, *.png")
    return EXIT_DONE


def describe_comparison(comparison: Comparison, workdir: AnyPath) -> str:
    """A line that says what a comparison would do; nothing is compiled or written.

    Raises:
        InputError: All variants that would not run; or another comparison's workdir.
    """
    plan = create_plan(comparison)
    check_same_plan(comparison, workdir)
    if plan.options.budget != "seconds" and not plan.options.minutes:
        Search(plan, workdir, say).shortened()
    check_writable(workdir, "Use another --workdir.")
    names = ", ".join(
        f"{variant.name} ({variant.params / 1e6:.2f}M parameters)"
        for variant in plan.variants
    )
    options = plan.options
    seeds = ", ".join(map(str, options.seeds))
    rates = ", ".join(f"{rate:g}" for rate in options.learning_rates)
    found = f" at the best learning rate of {rates} on seed {options.search_seed}"
    steps = plan.reference.experiment.training.num_steps
    length = f"{plan.reference.name} for {steps:,} steps"
    if options.minutes:
        length = f"for {options.minutes:g} minutes"
    return (
        f"Dry run: would train and evaluate {names}, each with seeds {seeds}"
        f"{found if rates else ''}, {length}, into {workdir}. Nothing was compiled or "
        f"written."
    )


class _Runs:
    """Every run, to be trained and scored: all variants with a seed, then the next."""

    def __init__(
        self,
        plan: Plan,
        workdir: AnyPath,
        losses: Mapping[str, HeldOutLosses],
        write: Callable[[], None],
    ) -> None:
        self._plan, self._workdir, self._write = plan, workdir, write
        self._quality, self._written = plan.options.quality, False
        self._evaluators = {
            v.name: _Evaluator(v, self._quality, losses[v.name]) for v in plan.variants
        }

    def tasks(self) -> list[Task]:
        runs = [
            (seed, v) for seed in self._plan.options.seeds for v in self._plan.variants
        ]
        tasks = []
        for index, (seed, variant) in enumerate(runs):
            folder = run_folder(self._workdir, variant.name, seed)
            name = f"{variant.name}, seed {seed}"
            told = f"{index + 1}/{len(runs)}  {name}"
            work = partial(self._work, variant, seed, folder, told)
            tasks.append(Task(name, folder, work))
        return tasks

    def _work(
        self, variant: Variant, seed: int, folder: AnyPath, told: str
    ) -> int | None:
        """Does what is left of a run; the exit code of a training that was stopped."""
        new = False
        if read_divergence(folder) is None:
            try:
                code = train_to_end(variant.seeded(seed), folder, told)
                if code is not None:
                    return code
                new = self._evaluators[variant.name].evaluate(seed, folder)
            except NonFiniteError as error:
                write_divergence(folder, str(error))
                new = True
        if new or not self._written:
            self._write()
            self._written = True
        say(f"{told}: {self._outcome(folder)}")
        return None

    def _outcome(self, folder: AnyPath) -> str:
        error = read_divergence(folder)
        if error is not None:
            return f"diverged: {printable(error)} Delete {folder} to train it again."
        points = read_points(folder)
        last = points[max(points, key=int)]
        return f"{self._quality} {last[self._quality]:.4f}"


def _begin(comparison: Comparison, plan: Plan, workdir: AnyPath) -> dict[str, Speed]:
    """Note what is compared; the speeds, of which one process measures the unknown."""
    speeds = {}

    def measure() -> None:
        check_same_plan(comparison, workdir)  # none has begun another one meanwhile
        write_checked(workdir / CONFIG, comparison.written)
        speeds.update(measure_speeds(plan, workdir, say))

    work_off([Task("the measuring of speeds", workdir, measure)], wait=True)
    return speeds


class _Evaluator:
    """Evaluates all runs of a variant with one compiled sampler and one loss."""

    def __init__(self, variant: Variant, quality: str, losses: HeldOutLosses) -> None:
        self._variant, self._quality, self._losses = variant, quality, losses
        self._experiment = variant.experiment
        self._options = self._experiment.sample
        self._sampler: Sampler | None = None
        self._scorer: Evaluator | None = None

    def evaluate(self, seed: int, folder: AnyPath) -> bool:
        """Score every checkpoint of a run that is not scored yet: points.json.

        Returns:
            Whether there was any.

        Raises:
            NonFiniteError: Its end cannot be scored.
        """
        points, new = read_points(folder), False
        saved = finished_steps(folder / CHECKPOINTS)
        config = self._variant.seeded(seed).config
        for step in evaluation_steps(self._experiment):
            if str(step) in points or step not in saved:
                continue
            run = load(folder, step=step, config=config)
            try:
                points[str(step)] = self._evaluate(run, folder)
            except NonFiniteError as error:
                if step == self._experiment.training.num_steps:
                    raise
                say(f"step {step}: not scored: {printable(error)}")
                continue
            write_points(folder, points)
            new = True
        return new

    def _evaluate(self, run: Run, folder: AnyPath) -> dict[str, Any]:
        if self._sampler is None or self._scorer is None:
            experiment, options = self._experiment, self._options
            guide = load_guide(experiment, options) if options.guide else None
            self._sampler = Sampler(experiment, options, run.mesh, guide)
            self._scorer = create_evaluator(self._experiment)
        drawing = Drawing(run.experiment, self._sampler, run.params, run.step)
        draw = partial(StageProgress(), "draw", total=self._options.num_images)
        drawn = drawing.draw(draw)
        if run.step == run.experiment.training.num_steps:
            drawn.save(folder / SAMPLES)
        record = score_drawn(drawn, self._scorer).record
        scores = record["scores"]
        if self._quality not in scores:
            raise InputError(
                f"compare.quality={self._quality!r} is no score of this run. "
                f"Available: {', '.join(scores)}."
            )
        levels = self._losses(run.params)
        loss = held_out_loss(levels)
        tell_scores(run.experiment, record, folder, say, held_out_loss=loss)
        return {
            **flat_scores(record),
            "checkpoint_step": run.step,
            "record": record,
            "noise_levels": levels,
        }


def _real_images(plan: Plan) -> LabelledImages | None:
    """Some test images from all over the split; None where latents are not decoded."""
    experiment = plan.reference.experiment
    try:
        source = open_pixels(experiment, "test")
    except InputError:
        return None
    places = np.linspace(0, len(source) - 1, min(NUM_REAL, len(source))).round()
    return read_images(
        source,
        places.astype(int).tolist(),
        max_damaged_share=experiment.data.max_damaged_share,
    )
