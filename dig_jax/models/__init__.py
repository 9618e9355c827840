"""Backbones: the networks that predict. The only folder that knows Flax."""

from collections.abc import Callable
from typing import Any

from dig_jax.errors import InputError
from dig_jax.interfaces import Backbone, Table
from dig_jax.models.dico import create_dico
from dig_jax.models.diffit import create_diffit
from dig_jax.models.diffit_image import create_diffit_image
from dig_jax.models.dig import create_dig_mix, create_dig_parallel
from dig_jax.models.dig_relational import create_dig_relational
from dig_jax.models.dimr import create_dimr
from dig_jax.models.dit import create_dit
from dig_jax.models.uvit import create_uvit

BACKBONES: Table[Callable[..., Backbone]] = Table(
    {
        "dig_parallel": create_dig_parallel,
        "dico": create_dico,
        "diffit": create_diffit,
        "diffit_image": create_diffit_image,
        "dig_mix": create_dig_mix,
        "dig_relational": create_dig_relational,
        "dimr": create_dimr,
        "dit": create_dit,
        "uvit": create_uvit,
    },
    "Backbones by `config.backbone.name`. An entry makes a Backbone from the section's "
    "other keys, its keywords: create_backbone(name, image_shape=(32, 32, 3), ...).",
)


def create_backbone(name: str, **options: Any) -> Backbone:
    """The backbone of that name; options are keywords of its entry in BACKBONES.

    Raises:
        InputError: Unknown name, or an option that does not fit.
    """
    if name not in BACKBONES:
        raise InputError(
            f"Unknown backbone {name!r}. Available: {', '.join(sorted(BACKBONES))}."
        )
    return BACKBONES[name](**options)
