"""Pure functions of diffusion: SDEs, prediction targets, losses."""

from collections.abc import Callable
from typing import Any

from dig_jax.diffusion.loss import simple_loss
from dig_jax.diffusion.prediction import make_denoiser
from dig_jax.diffusion.sde import VPLinear, create_vp_linear
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE

SDES: dict[str, Callable[..., SDE]] = {"vp_linear": create_vp_linear}


def create_sde(name: str, **options: Any) -> SDE:
    """The SDE of that name; options are keywords of its entry in SDES.

    Raises:
        InputError: Unknown name.
    """
    if name not in SDES:
        raise InputError(f"Unknown sde {name!r}. Available: {', '.join(sorted(SDES))}.")
    return SDES[name](**options)


__all__ = [
    "SDES",
    "VPLinear",
    "create_sde",
    "create_vp_linear",
    "make_denoiser",
    "simple_loss",
]
