"""The ten sections of a configuration, each with all its keys.

Each key has its type, default and meaning, and by the word that makes it its marks (see
`dig_jax/options/keys.py`): whether a run may go on with another value, and whether that
changes what is computed, or images.
"""

from dig_jax.options.drawing import EvaluationOptions, Network, Resize, SampleOptions
from dig_jax.options.keys import keys_of
from dig_jax.options.limits import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_SIDE,
    BatchSize,
    ImageCount,
    ImageSize,
)
from dig_jax.options.run import (
    CoarseTargets,
    DataOptions,
    GradientDType,
    LoggingOptions,
    LossSpace,
    MeshOptions,
    NamedOptions,
    Objective,
    OptimizerOptions,
    Prediction,
    ScaleWeights,
    TimeSampling,
    TrainingOptions,
)

__all__ = [
    "FREE_SECTIONS",
    "MAX_BATCH",
    "MAX_COUNT",
    "MAX_SIDE",
    "OPTIONAL_SECTIONS",
    "SECTIONS",
    "BatchSize",
    "CoarseTargets",
    "DataOptions",
    "EvaluationOptions",
    "GradientDType",
    "ImageCount",
    "ImageSize",
    "LoggingOptions",
    "LossSpace",
    "MeshOptions",
    "NamedOptions",
    "Network",
    "Objective",
    "OptimizerOptions",
    "Prediction",
    "Resize",
    "SampleOptions",
    "ScaleWeights",
    "TimeSampling",
    "TrainingOptions",
]

SECTIONS: dict[str, type] = {
    "backbone": NamedOptions,
    "data": DataOptions,
    "evaluation": EvaluationOptions,
    "logging": LoggingOptions,
    "mesh": MeshOptions,
    "objective": Objective,
    "optimizer": OptimizerOptions,
    "sample": SampleOptions,
    "sde": NamedOptions,
    "training": TrainingOptions,
}
"""The sections of a run's configuration; beside them stands its seed."""

OPTIONAL_SECTIONS = ("logging",)
"""Those that may be left out, with all their keys at their defaults."""

FREE_SECTIONS = tuple(
    section
    for section, options in SECTIONS.items()
    if all(key.marks.free for key in keys_of(options).values())
)
"""Sections that say nothing of the parameters: every key of theirs is free."""
