"""--known and --mask: the picture whose unknown pixels --mode=sample draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from dig_jax.errors import InputError

if TYPE_CHECKING:
    from dig_jax.sampling.inpainting import KnownPixels


def known_of(config: ConfigDict, options: flags.FlagValues) -> KnownPixels | None:
    """The known pixels; None where new images are to be drawn.

    Raises:
        InputError: One flag without the other, or files that do not fit the run.
    """
    given = [name for name in ("known", "mask") if options[name].value]
    if not given:
        return None
    if len(given) == 1:
        raise InputError(
            "Inpainting needs both --known=IMAGE and --mask=MASK (white where to draw, "
            f"black where the image is kept), got --{given[0]} alone."
        )
    from dig_jax.config import check_section
    from dig_jax.sampling.inpainting import read_known

    return read_known(options.known, options.mask, check_section(config, "data"))
