"""The options of a comparison."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from dig_jax.errors import InputError
from dig_jax.options.words import Words


@dataclass(frozen=True)
class CompareOptions:
    """How a comparison is made.

    Attributes:
        reference: The variant that the others are brought to the budget of.
        budget: What is equal: "macs" (multiply-accumulates an image) or "parameters",
            by the choice of each width, for the same number of steps; "seconds" (of
            training), by the number of steps; or "none".
        minutes: Each variant is trained for so many minutes, by the number of steps
            that its measured speed allows; 0: for as long as the budget says.
        seeds: One run of each variant for each. Runs of one seed see the same batches,
            times and noise.
        learning_rates: Two or more, each of which is tried with every variant; the one
            with the least held-out loss is the variant's. (): as the configuration
            says.
        search_seed: Seed of those runs, which must be none of `seeds`.
        search_share: Their steps over those of the runs that are compared.
        num_points: Evaluations along each run, equally spaced, the last at its end.
        quality: The score that is plotted over the budget, and judges beside the
            held-out loss; any that the metrics give.
        controls: Variants that the others are held against too, beside the reference
            and the best one.
        width_multiple: Widths are multiples of this, and of the number of heads.

    Raises:
        InputError: Learning rates, seeds or minutes that cannot be.
    """

    reference: str
    budget: Literal["macs", "parameters", "seconds", "none"] = "macs"
    minutes: NonNegativeFloat = 0.0
    seeds: tuple[int, ...] = (0, 1, 2)
    learning_rates: tuple[float, ...] = ()
    search_seed: NonNegativeInt = 1000
    search_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    num_points: PositiveInt = 4
    quality: str = "frechet_pixels"
    controls: Words = ()
    width_multiple: PositiveInt = 4

    def __post_init__(self) -> None:
        seeds, rates = self.seeds, self.learning_rates
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise InputError(
                f"compare.seeds must be different whole numbers from 0 on, got {seeds}."
            )
        if not rates:
            return
        if (
            len(rates) < 2
            or len(set(rates)) < len(rates)
            or not all(math.isfinite(rate) and rate > 0 for rate in rates)
        ):
            raise InputError(
                f"compare.learning_rates must be two or more different numbers above "
                f"0, or () for what the configuration says, got {rates}."
            )
        if self.search_seed in seeds:
            raise InputError(
                f"compare.search_seed must be none of compare.seeds {seeds}, as rates "
                f"are chosen on it, got {self.search_seed}."
            )
