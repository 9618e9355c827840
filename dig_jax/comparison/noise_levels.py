"""Held-out losses by noise level, and which of them compare."""

from typing import Any

import numpy as np


def noise_levels(variant: dict[str, Any], space: str) -> np.ndarray:
    """Held-out loss in each bin of t at the end, mean over a variant's runs, if any."""
    ends = [run["points"][-1]["noise_levels"][space] for run in variant["runs"]]
    return np.mean(ends, axis=0)


def has_reference_sde(variant: dict[str, Any]) -> bool:
    """Whether its noise at a time is the reference's, so that losses compare."""
    return not any(key.startswith("sde.") for key in variant["differs"])
