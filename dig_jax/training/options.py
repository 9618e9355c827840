"""The training section of a configuration."""

from dataclasses import dataclass

from ml_collections import ConfigDict
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from dig_jax.config import call_with_section, with_defaults
from dig_jax.data import DATASETS
from dig_jax.diffusion import SDES, Objective
from dig_jax.errors import InputError
from dig_jax.experiment import DataOptions
from dig_jax.models import BACKBONES
from dig_jax.training.gradient import GradientDType
from dig_jax.training.optimizer import create_optimizer


@dataclass(frozen=True)
class TrainingOptions:
    """How long a run trains, and what it writes on the way.

    Attributes:
        batch_size: Images in a global batch, over all devices.
        num_steps: Steps of the whole run.
        microbatch: Images of the global batch that are computed at a time, with less
            memory; 0 for all of them. The result is the same to rounding.
        gradient_dtype: What gradients are added up in over devices, float32 or
            bfloat16: half the bytes, with bfloat16's rounding at each addition.
        ema_decay: Decay of the average of the parameters, in [0, 1).
        posthoc_ema: Whether to keep two more averages and snapshots of them, from
            which one of any width is made after the run (arXiv:2312.02696).
        posthoc_every: Steps between two such snapshots; the last step has one anyway.
        log_every: Steps between two lines of metrics.
        diversity_every: Steps between two measurements of feature diversity; 0: never.
        sample_every: Steps between two pictures of samples; 0: at the end alone.
        samples_per_class: Images of each class in such a picture.
        checkpoint_every: Steps between two checkpoints; the last step is saved anyway.
        keep_checkpoints: Number of newest checkpoints kept.
        evaluate_every: Steps between two evaluations, as the evaluation section says;
            the last step has one too. 0: never.
        evaluate_images: Images drawn for one.
        keep_best: Score by which the best evaluated checkpoint is kept too, without its
            number of images, as in "fid"; "" for none.
        watchdog_seconds: The process is ended, to be started again, when no step was
            done for so long; pictures and evaluations do not count. 0: never.
    """

    batch_size: PositiveInt = 128
    num_steps: PositiveInt = 500_000
    microbatch: NonNegativeInt = 0
    gradient_dtype: GradientDType = "float32"
    ema_decay: NonNegativeFloat = 0.9999
    posthoc_ema: bool = False
    posthoc_every: PositiveInt = 5000
    log_every: PositiveInt = 100
    diversity_every: NonNegativeInt = 1000
    sample_every: NonNegativeInt = 10_000
    samples_per_class: PositiveInt = 10
    checkpoint_every: PositiveInt = 5000
    keep_checkpoints: PositiveInt = 3
    evaluate_every: NonNegativeInt = 0
    evaluate_images: PositiveInt = 1000
    keep_best: str = ""
    watchdog_seconds: NonNegativeFloat = 600.0


def create_training_options(config: ConfigDict) -> TrainingOptions:
    """The training section, checked.

    Raises:
        InputError: A value of a wrong type or range.
    """
    section = config.training.to_dict()
    options = call_with_section("training", TrainingOptions, section)
    if options.ema_decay >= 1:
        raise InputError(
            f"config.training.ema_decay must lie in [0, 1), got {options.ema_decay}."
        )
    if options.keep_best and not options.evaluate_every:
        raise InputError(
            f"config.training.keep_best={options.keep_best!r} needs evaluations during "
            f"training: set config.training.evaluate_every."
        )
    return options


def complete_config(config: ConfigDict) -> ConfigDict:
    """A configuration with what it leaves at its default, where a run depends on it.

    So a run goes on also when a key has come that was not there when it began.
    """
    constructors = {
        "objective": (Objective,),
        "optimizer": (create_optimizer,),
        "training": (TrainingOptions,),
        "data": (DataOptions, DATASETS.get(config.data.get("name"), dict)),
        "backbone": (BACKBONES.get(config.backbone.get("name"), dict),),
        "sde": (SDES.get(config.sde.get("name"), dict),),
    }
    sections = {
        name: with_defaults(config[name], *functions)
        for name, functions in constructors.items()
    }
    return ConfigDict({**config.to_dict(), **sections})
