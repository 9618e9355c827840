"""What a comparison trains: variants of one configuration, brought to one budget."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from ml_collections import ConfigDict

from dig_jax.config import with_values
from dig_jax.config.comparison import Comparison
from dig_jax.costs.summary import Costs, count_costs
from dig_jax.errors import Findings, InputError
from dig_jax.evaluation import (
    check_evaluation_options,
    check_num_images,
    check_scores,
    say_what_reference_lacks,
    score_names,
)
from dig_jax.experiment import Experiment, check_named_section, create_experiment
from dig_jax.experiment.images import named_after, open_dataset
from dig_jax.from_data import fit_to_data
from dig_jax.interfaces import ImageSource
from dig_jax.options import NamedOptions
from dig_jax.options.compare import CompareOptions
from dig_jax.sampling.choices import check_sample_options
from dig_jax.trained import load_guide


class Variant(NamedTuple):
    """One row of a comparison.

    Attributes:
        name: Its name in the tables, and its folder.
        experiment: What is trained, with the seed of the base.
        params: Number of parameters.
        macs: Multiply-accumulates of linear layers and convolutions, an image.
        attention_macs: Those of attention's products, an image.
    """

    name: str
    experiment: Experiment
    params: int
    macs: int
    attention_macs: int

    def seeded(self, seed: int) -> Experiment:
        """The run with that seed."""
        return self.experiment.changed({"seed": seed})


class Plan(NamedTuple):
    """A checked comparison."""

    options: CompareOptions
    variants: tuple[Variant, ...]

    @property
    def reference(self) -> Variant:
        """The variant that sets the budget."""
        return next(v for v in self.variants if v.name == self.options.reference)


def fit_comparison(comparison: Comparison) -> Comparison:
    """A comparison whose variants have what the data say in place of None.

    Raises:
        InputError: The data do not say it.
    """
    findings, runs = Findings("Variant"), {}
    for name, config in comparison.runs.items():
        with findings.noting(name):
            runs[name] = fit_to_data(config)
    findings.raise_all()
    return comparison._replace(runs=runs)


def create_plan(
    comparison: Comparison, say: Callable[[str], None] = lambda text: None
) -> Plan:
    """Check every variant of a comparison with its data, and choose its width.

    Args:
        comparison: As it is written.
        say: Told of each width that is looked for: it takes seconds.

    Raises:
        InputError: All that would not run.
    """
    options, findings = comparison.options, Findings("Variant")
    comparison = fit_comparison(comparison)
    experiments = {}
    for name, config in comparison.runs.items():
        with findings.noting(name):
            experiments[name] = _create_variant(name, config, options)
    for name, experiment in experiments.items():
        experiments[name] = _check_data(name, experiment, options, findings)
    findings.raise_all()
    target = _count(experiments[options.reference])
    variants = []
    for name, experiment in experiments.items():
        if _is_matched(name, options):
            say(f"planning   {name}: the width of equal {options.budget}")
            target_cost = float(_cost(target, options))
            experiment = match_width(experiment, target_cost, options)
        costs = _count(experiment)
        variants.append(Variant(name, experiment, *costs))
    return Plan(options, tuple(variants))


def match_width(
    experiment: Experiment, target: float, options: CompareOptions
) -> Experiment:
    """The experiment with the width whose cost comes nearest to a target.

    Args:
        experiment: Of a variant.
        target: Multiply-accumulates an image, or parameters, as the budget says.
        options: Which of them, and the widths to choose from.
    """
    quantum = _width_quantum(experiment.backbone_options, options)

    def with_width(units: int) -> Experiment:
        return experiment.changed({"backbone.width": units * quantum})

    @cache  # each takes a second
    def cost(units: int) -> int:
        return _cost(_count(with_width(units)), options)

    written = experiment.backbone_options.keywords.get("width", quantum)
    above = max(written // quantum, 1)
    for _ in range(3):  # it grows about as the square of the width
        above = max(round(above * math.sqrt(target / cost(above))), 1)
    while cost(above) < target:
        above += 1
    while above > 1 and cost(above - 1) >= target:
        above -= 1
    below = max(above - 1, 1)
    return with_width(min(below, above, key=lambda n: abs(cost(n) - target)))


def _is_matched(name: str, options: CompareOptions) -> bool:
    """Whether the budget chooses a variant's width."""
    return name != options.reference and options.budget in ("macs", "parameters")


def _width_quantum(backbone: NamedOptions, options: CompareOptions) -> int:
    """Widths are multiples of it."""
    return math.lcm(options.width_multiple, backbone.keywords.get("num_heads", 1))


def _count(experiment: Experiment) -> Costs:
    """Its costs, with one turn of its loop in the program: quick to trace."""
    if "unroll" in experiment.backbone_options.keywords:
        experiment = experiment.changed({"backbone.unroll": 1})
    return count_costs(experiment.backbone)


def _cost(costs: Costs, options: CompareOptions) -> int:
    """What the budget counts."""
    if options.budget == "parameters":
        return costs.params
    return costs.macs + costs.attention_macs


def with_num_steps(variant: Variant, num_steps: int, num_points: int) -> Variant:
    """The variant, trained for another number of steps."""
    experiment = variant.experiment.changed({"training.num_steps": num_steps})
    return variant._replace(experiment=_at_points(experiment, num_points))


def evaluation_steps(experiment: Experiment) -> list[int]:
    """The steps at which a run is evaluated: its checkpoints."""
    training = experiment.training
    last, every = training.num_steps, training.checkpoint_every
    return sorted({*range(every, last + 1, every), last})


def _at_points(experiment: Experiment, num_points: int) -> Experiment:
    """Keep a checkpoint for each evaluation; draw nothing in between."""
    return experiment.changed(
        {
            "training.checkpoint_every": -(
                -experiment.training.num_steps // num_points
            ),
            "training.keep_checkpoints": num_points + 1,
            "training.sample_every": 0,
        }
    )


def _create_variant(
    name: str, config: ConfigDict, options: CompareOptions
) -> Experiment:
    """A variant's experiment; raises InputError for what would fail hours later."""
    if _is_matched(name, options):  # its own width need not fit its heads
        quantum = _width_quantum(check_named_section(config, "backbone"), options)
        config = with_values(config, {"backbone.width": quantum})
    experiment, findings = create_experiment(config), Findings()
    with findings.noting():
        check_evaluation_options(experiment.evaluation)
    with findings.noting():
        if (sigma_rel := experiment.sample.sigma_rel) is not None:
            raise InputError(
                f"A comparison draws with the averages that its checkpoints hold: leave"
                f" sample.sigma_rel at None, got {sigma_rel:g}."
            )
    with findings.noting():
        num_steps = experiment.training.num_steps
        if num_steps < options.num_points:
            raise InputError(
                f"{num_steps} steps cannot be evaluated at {options.num_points} points."
            )
    findings.raise_all()
    return _at_points(experiment, options.num_points)


def _check_data(
    name: str, experiment: Experiment, options: CompareOptions, findings: Findings
) -> Experiment:
    """Note what a variant's data do not have; returns it with the names of classes."""
    evaluation, num_images = experiment.evaluation, experiment.sample.num_images
    train = test = None
    with findings.noting(name):
        train = open_dataset(experiment, "train")
    if train is not None:
        experiment = named_after(experiment, train)
        with findings.noting(name):
            test = _open_test(experiment)
        with findings.noting(name):
            check_scores(evaluation, train)
        with findings.noting(name):
            check_num_images(evaluation, train, num_images)
    with findings.noting(name):
        check_sample_options(experiment, experiment.sample)
    with findings.noting(name):
        if experiment.sample.guide:
            load_guide(experiment, experiment.sample)
    if train is not None:
        names = score_names(
            evaluation,
            train,
            num_images=num_images,
            num_test=0 if test is None else len(test),
            conditional=experiment.backbone.num_classes > 0,
        )
        with findings.noting(name):
            if options.quality not in names:
                raise InputError(
                    f"compare.quality={options.quality!r} is no score of these runs. "
                    f"Available: {', '.join(names) or 'none'}."
                    f"{say_what_reference_lacks(evaluation, train)}"
                )
    return experiment


def _open_test(experiment: Experiment) -> ImageSource:
    """The test images, which every comparison holds its losses against.

    Raises:
        InputError: There are none.
    """
    try:
        return open_dataset(experiment, "test")
    except InputError as error:
        hint = ""
        if experiment.data.name == "folder":
            hint = " Prepare the pictures again with --test_share=0.1, elsewhere."
        raise InputError(
            f"A comparison measures losses on test images. {error}{hint}"
        ) from None
