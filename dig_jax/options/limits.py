"""How much of anything a configuration may ask for."""

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_SIDE, MAX_COUNT, MAX_BATCH = 4096, 10**8, 10**6
"""Of an image in pixels, of images, and of images at a time: arrays of so many are made
before anything is computed."""
Side: TypeAlias = Annotated[int, Field(gt=0, le=MAX_SIDE)]
ImageSize: TypeAlias = Side | tuple[Side, Side]
ImageCount: TypeAlias = Annotated[int, Field(gt=0, le=MAX_COUNT)]
BatchSize: TypeAlias = Annotated[int, Field(gt=0, le=MAX_BATCH)]
SolverSteps: TypeAlias = Annotated[int, Field(gt=0, le=MAX_BATCH)]
