"""The options of a comparison."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt


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
