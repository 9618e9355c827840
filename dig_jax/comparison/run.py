"""The loop over all runs of a comparison; goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
    with_num_steps,
)
from dig_jax.comparison.report import write_report
from dig_jax.config import Comparison, config_from_json, read_comparison
from dig_jax.data.loader import read_all
from dig_jax.diffusion import noise_level_losses
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.evaluation import Evaluator, flat_scores
from dig_jax.experiment import Experiment, complete_config, open_dataset
from dig_jax.files.paths import AnyPath, make_folder, read_text, write_whole
from dig_jax.interfaces import LabelledImages, Params
from dig_jax.reporting.progress import Progress
from dig_jax.run import Run, load
from dig_jax.sampling.sampler import Sampler
from dig_jax.sampling.samples import describe_samples, save_samples
from dig_jax.training.clean import clean_images
from dig_jax.training.loop import TrainingRun

# Held-out images are noised by this key, the same for every variant and seed.
HELD_OUT_SEED = 20
MAX_HELD_OUT = 1024
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
    plan = create_plan(comparison)
    make_folder(workdir)
    _check_same_plan(comparison, workdir)
    speeds = measure_speeds(plan, workdir, partial(print, flush=True))
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
        print(f"{told}: {_last_score(folder, plan.options.quality)}", flush=True)
    print(f"Compared: {workdir}/compare.md, compare.json, *.png")
    return EXIT_DONE


def _train(experiment: Experiment, folder: AnyPath, told: str) -> int | None:
    """Train a run to its end; its exit code if it was stopped before."""
    if _is_trained(experiment, folder):
        return None
    run = TrainingRun(experiment, folder)
    with _RunProgress(run.options.num_steps, description=told) as progress:
        code = run.train(progress)
    return None if _is_trained(experiment, folder) else code


def _is_trained(experiment: Experiment, folder: AnyPath) -> bool:
    last = experiment.training.num_steps
    return (folder / "checkpoints" / str(last)).is_dir()


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
        path = folder / "points.json"
        points = json.loads(read_text(path)) if path.is_file() else {}
        for step in evaluation_steps(self._experiment):
            if str(step) in points:
                continue
            config = self._variant.seeded(seed).config
            run = load(folder, step=step, config=config)
            points[str(step)] = self._evaluate(run, folder)
            write_whole(path, json.dumps(points, indent=1))

    def _evaluate(self, run: Run, folder: AnyPath) -> dict[str, Any]:
        if self._sampler is None or self._scorer is None:
            self._sampler = Sampler(self._experiment, self._options, run.mesh)
            options = self._experiment.evaluation
            self._scorer = Evaluator(self._experiment, options, run.mesh)
        images = self._sampler.draw(run.params)
        labels = self._sampler.labels
        provenance = describe_samples(run.experiment, self._options, run.step)
        if run.step == run.experiment.training.num_steps:
            save_samples(folder / "samples.npz", images, labels, provenance)
        if labels is None:
            labels = np.zeros(len(images), np.int32)
        record = self._scorer.score(LabelledImages(images, labels), provenance)
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

    More seeds, and more variants, may come: what is done stays as it is.
    """
    path = workdir / "config.json"
    if path.is_file():
        before = read_comparison(config_from_json(read_text(path)))
        options = replace(
            before.options,
            seeds=comparison.options.seeds,
            quality=comparison.options.quality,
        )
        now = comparison.runs
        if options != comparison.options or any(
            name not in now or complete_config(run) != complete_config(now[name])
            for name, run in before.runs.items()
        ):
            raise InputError(
                f"{workdir} holds another comparison (its config.json differs in more "
                f"than seeds and added variants). Use another --workdir."
            )
    write_whole(path, json.dumps(comparison.written, indent=1))


def _last_score(folder: AnyPath, quality: str) -> str:
    points = json.loads(read_text(folder / "points.json"))
    last = points[max(points, key=int)]
    return f"{quality} {last[quality]:.4f}"
