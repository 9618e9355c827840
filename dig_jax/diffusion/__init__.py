"""Pure functions of diffusion: SDEs, predictions, objectives, losses, guidance."""

from collections.abc import Callable
from typing import Any

from dig_jax.diffusion.discrete import VPDiscrete, create_vp_discrete
from dig_jax.diffusion.guidance import (
    Guidance,
    check_guidance,
    make_autoguided_denoiser,
    make_guided_denoiser,
    make_guided_variance_denoiser,
)
from dig_jax.diffusion.loss import (
    NUM_NOISE_LEVELS,
    Draws,
    PerImage,
    denoising_loss,
    draw_times_and_noise,
    drop_labels,
    loss_by_noise_level,
    loss_of_draws,
    noise_level_losses,
)
from dig_jax.diffusion.objective import check_objective, check_variance_loss
from dig_jax.diffusion.prediction import (
    add_noise,
    make_denoiser,
    make_variance_denoiser,
    network_input,
)
from dig_jax.diffusion.sde import (
    EDM,
    Flow,
    VPCosine,
    VPLinear,
    create_edm,
    create_flow,
    create_vp_cosine,
    create_vp_linear,
)
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Table
from dig_jax.options import Objective

SDES: Table[Callable[..., SDE]] = Table(
    {
        "vp_linear": create_vp_linear,
        "vp_cosine": create_vp_cosine,
        "vp_discrete": create_vp_discrete,
        "flow": create_flow,
        "edm": create_edm,
    },
    "Forward processes by `config.sde.name`. An entry makes an SDE from the section's "
    "other keys: create_sde(name, ...).",
)


def create_sde(name: str, **options: Any) -> SDE:
    """The SDE of that name; options are keywords of its entry in SDES.

    Raises:
        InputError: Unknown name.
    """
    if name not in SDES:
        raise InputError(f"Unknown sde {name!r}. Available: {', '.join(sorted(SDES))}.")
    return SDES[name](**options)


__all__ = [
    "EDM",
    "NUM_NOISE_LEVELS",
    "SDES",
    "Draws",
    "Flow",
    "Guidance",
    "Objective",
    "PerImage",
    "VPCosine",
    "VPDiscrete",
    "VPLinear",
    "add_noise",
    "check_guidance",
    "check_objective",
    "check_variance_loss",
    "create_edm",
    "create_flow",
    "create_sde",
    "create_vp_cosine",
    "create_vp_discrete",
    "create_vp_linear",
    "denoising_loss",
    "draw_times_and_noise",
    "drop_labels",
    "loss_by_noise_level",
    "loss_of_draws",
    "make_autoguided_denoiser",
    "make_denoiser",
    "make_guided_denoiser",
    "make_guided_variance_denoiser",
    "make_variance_denoiser",
    "network_input",
    "noise_level_losses",
]
