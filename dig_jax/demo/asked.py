"""What the page asks for: read from JSON, and bounded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dig_jax.errors import InputError
from dig_jax.options import SampleOptions
from dig_jax.solvers import SOLVERS

MOST_IMAGES = 32
MOST_STEPS = 1000
MOST_GUIDANCE = 20.0
MOST_SEED = 2**31 - 1
MOST_LETTERS = 200
MOST_FRAMES = 24
MOST_PIXELS = 2**24
"""Of all frames of all images of an answer."""

# What belongs to one solver, and says nothing to another.
OF_ONE_SOLVER = {
    "order": None,
    "eta": None,
    "churn": None,
    "churn_interval": None,
    "churn_noise": None,
    "variance": None,
    "integrand": None,
    "inner_times": None,
    "time_grid": "auto",
}


@dataclass(frozen=True)
class Asked:
    """The fields of a request, each read when it is looked at.

    Attributes:
        fields: A JSON object's.
    """

    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text, without what is around it; "" where there is none.

        Raises:
            InputError: It is no text, or too long.
        """
        value = self.fields.get(name, "")
        if not isinstance(value, str) or len(value) > MOST_LETTERS:
            raise InputError(
                f"{_said(name)} must be a text of at most {MOST_LETTERS} letters."
            )
        return value.strip()

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number.

        Raises:
            InputError: It is none, or beyond its bounds.
        """
        text = self.text(name)
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and least <= int(text) <= most):
            raise InputError(
                f"{_said(name)} must be a whole number from {least} to {most}, got "
                f"{text!r}."
            )
        return int(text)

    def number(self, name: str, least: float, most: float) -> float:
        """A number.

        Raises:
            InputError: It is none, or beyond its bounds.
        """
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise InputError(
                f"{_said(name)} must be a number from {least:g} to {most:g}, got "
                f"{text!r}."
            )
        return value

    def options(
        self, own: SampleOptions, labels: str | int | tuple[str, ...], num_images: int
    ) -> SampleOptions:
        """How the images are drawn.

        Args:
            own: Those of the run, for what the page does not ask.
            labels: Of the images.
            num_images: How many.

        Raises:
            InputError: An unknown solver, or a number beyond its bounds.
        """
        solver = self.text("solver")
        if solver not in SOLVERS:
            raise InputError(
                f"Unknown solver {solver!r}. Available: {', '.join(sorted(SOLVERS))}."
            )
        if solver != own.solver:
            own = replace(own, solver=solver, **OF_ONE_SOLVER)
        return replace(
            own,
            num_steps=self.whole("steps", 1, max(MOST_STEPS, own.num_steps)),
            guidance=self.number("guidance", 0.0, MOST_GUIDANCE),
            seed=self.whole("seed", 0, MOST_SEED),
            labels=labels,
            num_images=num_images,
            batch_size=1,  # the smallest batches: one program for any number
        )


def frames_that_fit(num_images: int, image_shape: tuple[int, int, int]) -> int:
    """How many frames an answer has.

    Raises:
        InputError: Not even two.
    """
    rows, cols, _ = image_shape
    frames = min(MOST_FRAMES, MOST_PIXELS // (num_images * rows * cols))
    if frames < 2:
        most = MOST_PIXELS // (2 * rows * cols)
        raise InputError(
            f"The number of images of {rows} by {cols} pixels must be at most {most}, "
            f"got {num_images}."
        )
    return frames


def _said(name: str) -> str:
    """The field as the page calls it."""
    words = name.replace("_", " ")
    return words[0].upper() + words[1:]
