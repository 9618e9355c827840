"""What a comparison trains: variants of one configuration, brought to one budget."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict
from pydantic import PositiveInt

from dig_jax.config import (
    SECTIONS,
    call_with_section,
    check_sections,
)
from dig_jax.costs.summary import Costs, count_costs
from dig_jax.errors import InputError
from dig_jax.evaluation import create_evaluation_options
from dig_jax.experiment import create_experiment
from dig_jax.sampling.sampler import create_sample_options
from dig_jax.training.options import create_training_options


@dataclass(frozen=True)
class CompareOptions:
    """How a comparison is made.

    Attributes:
        reference: The variant that the others are brought to the budget of.
        budget: What is equal: "macs" (multiply-accumulates an image) or "parameters",
            by the choice of each width, for the same number of steps; "seconds" (of
            training), by the number of steps; or "none".
        seeds: One run of each variant for each. Runs of one seed see the same batches,
            times and noise.
        num_points: Evaluations along each run, equally spaced, the last at its end.
        quality: The score that is plotted over the budget; any that the metrics give.
        width_multiple: Widths are multiples of this, and of the number of heads.
    """

    reference: str
    budget: Literal["macs", "parameters", "seconds", "none"] = "macs"
    seeds: tuple[int, ...] = (0, 1, 2)
    num_points: PositiveInt = 4
    quality: str = "frechet_pixels"
    width_multiple: PositiveInt = 4


class Variant(NamedTuple):
    """One row of a comparison.

    Attributes:
        name: Its name in the tables, and its folder.
        config: Its complete configuration, of the first seed.
        params: Number of parameters.
        macs: Multiply-accumulates of linear layers and convolutions, an image.
        attention_macs: Those of attention's products, an image.
    """

    name: str
    config: ConfigDict
    params: int
    macs: int
    attention_macs: int

    def seeded(self, seed: int) -> ConfigDict:
        """The configuration of the run with that seed."""
        config = copy.deepcopy(self.config)
        config.seed = seed
        return config


class Plan(NamedTuple):
    """A checked comparison."""

    options: CompareOptions
    variants: tuple[Variant, ...]

    @property
    def reference(self) -> Variant:
        """The variant that sets the budget."""
        return next(v for v in self.variants if v.name == self.options.reference)


def create_plan(config: ConfigDict) -> Plan:
    """Check a comparison's configuration and choose every width.

    Args:
        config: `base`, a complete configuration; `variants`, for each name the sections
            in which it differs (a section with a `name` replaces the base's, another
            changes single keys); `compare`, the options.

    Raises:
        InputError: Anything that would not run.
    """
    _check_parts(config)
    options = call_with_section("compare", CompareOptions, config.compare.to_dict())
    configs = {
        name: vary(config.base, name, sections.to_dict())
        for name, sections in config.variants.items()
    }
    _check_options(options, configs)
    # A ConfigDict keeps no order: the reference first, the others by name.
    configs = {options.reference: configs.pop(options.reference), **configs}
    reference = configs[options.reference]
    target = count_costs(create_experiment(_looped(reference)).backbone)
    variants = []
    for name, variant in configs.items():
        if name != options.reference and options.budget in ("macs", "parameters"):
            variant = match_width(variant, _cost(target, options), options)
        variant = _at_points(variant, options.num_points)
        _check_runs(name, variant, options)
        costs = count_costs(create_experiment(_looped(variant)).backbone)
        variants.append(Variant(name, variant, *costs))
    return Plan(options, tuple(variants))


def vary(base: ConfigDict, name: str, sections: Mapping[str, Any]) -> ConfigDict:
    """The base's configuration with a variant's sections.

    Raises:
        InputError: A section that does not exist.
    """
    config = copy.deepcopy(base)
    config.unlock()
    for section, values in sections.items():
        if section not in SECTIONS:
            raise InputError(
                f"Variant {name!r} has an unknown section {section!r}. Available: "
                f"{', '.join(SECTIONS)}."
            )
        merged = {} if "name" in values else config[section].to_dict()
        config[section] = ConfigDict({**merged, **values})
    return config


def match_width(
    config: ConfigDict, target: float, options: CompareOptions
) -> ConfigDict:
    """The configuration with the width whose cost comes nearest to a target.

    Args:
        config: Of a variant.
        target: Multiply-accumulates an image, or parameters, as the budget says.
        options: Which of them, and the widths to choose from.
    """
    heads = config.backbone.get("num_heads", 1)
    quantum = math.lcm(options.width_multiple, heads)

    def with_width(width: int) -> ConfigDict:
        changed = copy.deepcopy(config)
        changed.backbone.width = width
        return changed

    def cost(units: int) -> int:
        experiment = create_experiment(_looped(with_width(units * quantum)))
        return _cost(count_costs(experiment.backbone), options)

    above = 1
    while cost(above) < target:
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (above + below) // 2
        below, above = (middle, above) if cost(middle) < target else (below, middle)
    nearest = min((below or 1, above), key=lambda units: abs(cost(units) - target))
    return with_width(nearest * quantum)


def _cost(costs: Costs, options: CompareOptions) -> int:
    """What the budget counts."""
    if options.budget == "parameters":
        return costs.params
    return costs.macs + costs.attention_macs


def with_num_steps(variant: Variant, num_steps: int, num_points: int) -> Variant:
    """The variant, trained for another number of steps."""
    config = copy.deepcopy(variant.config)
    config.training.num_steps = num_steps
    return variant._replace(config=_at_points(config, num_points))


def evaluation_steps(config: ConfigDict) -> list[int]:
    """The steps at which a run is evaluated: its checkpoints."""
    last, every = config.training.num_steps, config.training.checkpoint_every
    return sorted({*range(every, last + 1, every), last})


def _at_points(config: ConfigDict, num_points: int) -> ConfigDict:
    """Keep a checkpoint for each evaluation; draw nothing in between."""
    config = copy.deepcopy(config)
    config.training.update(
        checkpoint_every=-(-config.training.num_steps // num_points),
        keep_checkpoints=num_points + 1,
        sample_every=0,
    )
    return config


def _looped(config: ConfigDict) -> ConfigDict:
    """The same network, one turn of its loop in the program: quick to trace."""
    config = copy.deepcopy(config)
    if "unroll" in config.backbone:
        config.backbone.unroll = 1
    return config


def _check_parts(config: ConfigDict) -> None:
    parts = ("base", "compare", "variants")
    if not isinstance(config, ConfigDict) or set(config) != set(parts):
        raise InputError(
            f"The configuration of a comparison has the parts {', '.join(parts)} (see "
            f"configs/compare_digits.py), got {', '.join(sorted(config)) or 'nothing'}."
        )
    check_sections(config.base, "base of the comparison")
    if not config.variants:
        raise InputError("A comparison needs variants, got none.")
    for name in config.variants:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(
                f"A variant's name is made of letters, digits, _ and -, as it is a "
                f"folder, got {name!r}."
            )


def _check_options(options: CompareOptions, configs: Mapping[str, ConfigDict]) -> None:
    if options.reference not in configs:
        raise InputError(
            f"Unknown compare.reference {options.reference!r}. Variants: "
            f"{', '.join(configs)}."
        )
    seeds = options.seeds
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(
            f"compare.seeds must be different whole numbers from 0 on, got {seeds}."
        )


def _check_runs(name: str, config: ConfigDict, options: CompareOptions) -> None:
    """Raise InputError for what would fail hours later."""
    try:
        experiment = create_experiment(config)
        create_sample_options(experiment)
        create_evaluation_options(experiment)
        training = create_training_options(config)
    except InputError as error:
        raise InputError(f"Variant {name!r}: {error}") from None
    if training.num_steps < options.num_points:
        raise InputError(
            f"Variant {name!r}: {training.num_steps} steps cannot be evaluated at "
            f"{options.num_points} points."
        )
