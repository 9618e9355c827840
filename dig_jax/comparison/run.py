"""The loop over all runs of a comparison; goes on where it stopped."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.comparison.measure import Speed, measure_speeds
from dig_jax.comparison.plan import (
    Plan,
    Variant,
    create_plan,
    evaluation_steps,
    fit_comparison,
    with_num_steps,
)
from dig_jax.comparison.points import read_points, write_points
from dig_jax.comparison.report import write_report
from dig_jax.config import Comparison, config_of, read_comparison
from dig_jax.data.loader import read_all
from dig_jax.diffusion import noise_level_losses
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.evaluation import Evaluator, flat_scores
from dig_jax.evaluation.score_run import score_drawn
from dig_jax.experiment import Experiment, complete_config
from dig_jax.experiment.images import open_dataset
from dig_jax.files.checked_json import read_sound, write_checked
from dig_jax.files.paths import AnyPath, check_writable, make_folder
from dig_jax.files.shown import say
from dig_jax.interfaces import Params
from dig_jax.reporting.progress import Progress
from dig_jax.run import Run, load
from dig_jax.sampling.drawing import SAMPLES, Drawing
from dig_jax.sampling.sampler import Sampler
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.training.clean import clean_images
from dig_jax.training.loop import TrainingRun

# Held-out images are noised by this key, the same for every variant and seed.
HELD_OUT_SEED = 20
MAX_HELD_OUT = 1024
_ADVICE = "Delete it, if you know that the runs beside it are of this comparison."
LOSS_SPACES = ("eps", "x0")


def compare(comparison: Comparison, workdir: AnyPath) -> int:
    """Train and evaluate every variant with every seed; write the tables and plots.

    Each run is an ordinary run in `runs/VARIANT-SEED/` and goes on where it stopped;
    after each of them `compare.json`, `compare.md` and the plots are written anew.

    Returns:
        Exit code: that of a training that was interrupted, else done.

    Raises:
        InputError: A variant that would not run; nothing is trained then.
    """
    plan = create_plan(comparison, say)
    _check_same_plan(comparison, workdir)
    make_folder(workdir)
    write_checked(workdir / "config.json", comparison.written)
    speeds = measure_speeds(plan, workdir, say)
    if plan.options.budget == "seconds":
        plan = with_equal_seconds(plan, speeds)
    evaluators = {v.name: _Evaluator(v, plan.options.quality) for v in plan.variants}
    pending = [(seed, v) for seed in plan.options.seeds for v in plan.variants]
    for index, (seed, variant) in enumerate(pending):
        folder = workdir / "runs" / f"{variant.name}-{seed}"
        told = f"{index + 1}/{len(pending)}  {variant.name}, seed {seed}"
        code = _train(variant.seeded(seed), folder, told)
        if code is not None:
            return code
        evaluators[variant.name].evaluate(seed, folder)
        write_report(plan, speeds, workdir)
        say(f"{told}: {_last_score(folder, plan.options.quality)}")
    say(f"Compared: {workdir}/compare.md, compare.json, *.png")
    return EXIT_DONE


def describe_comparison(comparison: Comparison, workdir: AnyPath) -> str:
    """A line that says what a comparison would do; nothing is compiled or written.

    Raises:
        InputError: All variants that would not run; or another comparison's workdir.
    """
    plan = create_plan(comparison)
    _check_same_plan(comparison, workdir)
    check_writable(workdir, "Use another --workdir.")
    names = ", ".join(
        f"{variant.name} ({variant.params / 1e6:.2f}M parameters)"
        for variant in plan.variants
    )
    seeds = ", ".join(map(str, plan.options.seeds))
    steps = plan.reference.experiment.training.num_steps
    return (
        f"Dry run: would train and evaluate {names}, each with seeds {seeds}, "
        f"{plan.reference.name} for {steps:,} steps, into {workdir}. Nothing was "
        f"compiled or written."
    )


def _train(experiment: Experiment, folder: AnyPath, told: str) -> int | None:
    """Train a run to its end; its exit code if it was stopped before."""
    run = TrainingRun(experiment, folder)
    if _is_trained(run, folder):
        return None
    with _RunProgress(run.options.num_steps, description=told) as progress:
        code = run.train(progress)
    return None if _is_trained(run, folder) else code


def _is_trained(run: TrainingRun, folder: AnyPath) -> bool:
    """Whether the last checkpoint, and each that is not scored yet, can be read.

    One that cannot is deleted with those after it: training goes on from before it.
    """
    directory, last = folder / "checkpoints", run.options.num_steps
    if not directory.is_dir():
        return False
    like, scored = run.setup.programs.abstract_state, read_points(folder)
    with Checkpoints(directory, read_only=True) as checkpoints:
        done = checkpoints.latest_step() or 0
        damaged = [
            step
            for step in evaluation_steps(run.setup.experiment)
            if step <= done
            and (step == last or str(step) not in scored)
            and not checkpoints.is_sound(step, like)
        ]
    if damaged:
        keep = run.options.keep_checkpoints
        with Checkpoints(directory, keep=keep) as checkpoints:
            checkpoints.delete_from(min(damaged))
    return done >= last and not damaged


class _RunProgress(Progress):
    """Progress of one run among many: what it says of its own files is left out."""

    def message(self, text: str) -> None:
        """Nothing."""


class _Evaluator:
    """Evaluates all runs of a variant with one compiled sampler and one loss."""

    def __init__(self, variant: Variant, quality: str) -> None:
        self._variant, self._quality = variant, quality
        self._experiment = variant.experiment
        self._options = self._experiment.sample
        self._sampler: Sampler | None = None
        self._scorer: Evaluator | None = None
        self._losses: Callable[[Params], Any] | None = None

    def evaluate(self, seed: int, folder: AnyPath) -> None:
        """Score every checkpoint of a run that is not scored yet: points.json."""
        points = read_points(folder)
        for step in evaluation_steps(self._experiment):
            if str(step) in points:
                continue
            config = self._variant.seeded(seed).config
            run = load(folder, step=step, config=config)
            points[str(step)] = self._evaluate(run, folder)
            write_points(folder, points)

    def _evaluate(self, run: Run, folder: AnyPath) -> dict[str, Any]:
        if self._sampler is None or self._scorer is None:
            self._sampler = Sampler(self._experiment, self._options, run.mesh)
            options = self._experiment.evaluation
            self._scorer = Evaluator(self._experiment, options, run.mesh)
        drawn = Drawing(run.experiment, self._sampler, run.params, run.step).draw()
        if run.step == run.experiment.training.num_steps:
            drawn.save(folder / SAMPLES)
        record = score_drawn(drawn, self._scorer).record
        scores = record["scores"]
        if self._quality not in scores:
            raise InputError(
                f"compare.quality={self._quality!r} is no score of this run. "
                f"Available: {', '.join(scores)}."
            )
        return {
            **flat_scores(record),
            "checkpoint_step": run.step,
            "record": record,
            "noise_levels": self._noise_levels(run.params),
        }

    def _noise_levels(self, params: Params) -> dict[str, list[float]]:
        """Held-out loss in ten bins of t, for each space it is measured in."""
        if self._losses is None:
            self._losses = self._make_losses()
        losses = self._losses(params)
        return {space: np.asarray(values).tolist() for space, values in losses.items()}

    def _make_losses(self) -> Callable[[Params], dict[str, jax.Array]]:
        experiment = self._experiment
        held_out = read_all(open_dataset(experiment, "test"))
        stored = jnp.asarray(held_out.images[:MAX_HELD_OUT])
        unmirrored = replace(experiment.data, random_flip=False)
        x0 = clean_images(jax.random.key(0), stored, unmirrored)
        label = jnp.asarray(held_out.labels[:MAX_HELD_OUT])
        key = jax.random.key(HELD_OUT_SEED)

        @jax.jit
        def losses(params: Params) -> dict[str, jax.Array]:
            by_image = noise_level_losses(
                experiment.backbone.apply,
                params,
                experiment.sde,
                key,
                x0,
                label if experiment.backbone.num_classes else None,
                objective=experiment.objective,
                loss_spaces=LOSS_SPACES,
            )
            return {space: loss.mean(axis=1) for space, loss in by_image.items()}

        return losses


def with_equal_seconds(plan: Plan, speeds: dict[str, Speed]) -> Plan:
    """Every variant trains for the time that the reference needs for its steps."""
    reference = plan.reference
    steps = reference.experiment.training.num_steps
    rate = speeds[reference.name].images_per_second
    variants = [
        with_num_steps(
            variant,
            max(
                round(steps * speeds[variant.name].images_per_second / rate),
                plan.options.num_points,
            ),
            plan.options.num_points,
        )
        for variant in plan.variants
    ]
    return plan._replace(variants=tuple(variants))


def _check_same_plan(comparison: Comparison, workdir: AnyPath) -> None:
    """Raise InputError where the workdir holds another comparison.

    More seeds, and more variants, may come: what is done stays as it is. A comparison
    of which nothing has been trained may become any other.
    """
    path = workdir / "config.json"
    if path.is_file() and (workdir / "runs").is_dir():
        what = "does not hold the configuration of a comparison"
        before = read_comparison(config_of(read_sound(path, what, _ADVICE)))
        options = replace(
            before.options,
            seeds=comparison.options.seeds,
            quality=comparison.options.quality,
        )
        now = fit_comparison(comparison).runs
        if options != comparison.options or any(
            name not in now or complete_config(run) != complete_config(now[name])
            for name, run in fit_comparison(before).runs.items()
        ):
            raise InputError(
                f"{workdir} holds another comparison (its config.json differs in more "
                f"than seeds and added variants). Use another --workdir."
            )


def _last_score(folder: AnyPath, quality: str) -> str:
    points = read_points(folder)
    last = points[max(points, key=int)]
    return f"{quality} {last[quality]:.4f}"
