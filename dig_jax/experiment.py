"""From a configuration to the things that it names."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from ml_collections import ConfigDict
from pydantic import Field, NonNegativeInt, PositiveInt

from dig_jax.config import call_with_section
from dig_jax.data import DATASETS
from dig_jax.diffusion import SDES, Objective, check_objective
from dig_jax.errors import InputError
from dig_jax.interfaces import SDE, Backbone, ImageSource
from dig_jax.models import BACKBONES

ImageSize = PositiveInt | tuple[PositiveInt, PositiveInt]


@dataclass(frozen=True)
class DataOptions:
    """How images are read, whatever the data set.

    Attributes:
        name: Entry of DATASETS.
        image_size: Side, or (rows, cols), in pixels.
        channels: 1 or 3; 4 for latents.
        random_flip: Mirror each training image left to right with probability 1/2.
        num_threads: Threads that read ahead.
        num_workers: Processes that read ahead; 0 for none.
        max_damaged_share: Share of a split's records that may be damaged: they are
            named, and the next ones taken instead.
    """

    name: str
    image_size: ImageSize
    channels: Literal[1, 3, 4] = 3
    random_flip: bool = False
    num_threads: NonNegativeInt = 4
    num_workers: NonNegativeInt = 0
    max_damaged_share: Annotated[float, Field(ge=0, le=1)] = 0.001

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(row, col, rgb)."""
        size = self.image_size
        rows, cols = (size, size) if isinstance(size, int) else size
        return rows, cols, self.channels


class Experiment(NamedTuple):
    """What a configuration names, made."""

    config: ConfigDict
    backbone: Backbone
    sde: SDE
    objective: Objective
    data: DataOptions


def create_experiment(config: ConfigDict) -> Experiment:
    """Make everything but the data set and the optimizer.

    Raises:
        InputError: Anything in the configuration that does not work.
    """
    data = create_data_options(config.data)
    objective = call_with_section("objective", Objective, config.objective.to_dict())
    sde = create_named("sde", SDES, config.sde.to_dict())
    backbone = create_named(
        "backbone",
        BACKBONES,
        config.backbone.to_dict(),
        image_shape=data.image_shape,
        null_label=objective.label_dropout > 0,
    )
    return Experiment(
        config=config,
        backbone=backbone,
        sde=sde,
        objective=check_objective(objective, sde),
        data=data,
    )


def create_data_options(section: ConfigDict) -> DataOptions:
    """The part of the data section that every data set shares."""
    values = section.to_dict()
    mine = {k: v for k, v in values.items() if k in DataOptions.__dataclass_fields__}
    return call_with_section("data", DataOptions, mine)


def open_dataset(experiment: Experiment, split: str) -> ImageSource:
    """One split of the configuration's data set, checked against its backbone.

    Raises:
        InputError: Unknown, not prepared, or of another shape or number of classes.
    """
    options, backbone = experiment.data, experiment.backbone
    loader_keys = ("random_flip", "num_threads", "num_workers", "max_damaged_share")
    section = {
        key: value
        for key, value in experiment.config.data.to_dict().items()
        if key not in loader_keys
    }
    if options.name == "synthetic":  # as many classes as are wanted
        section.setdefault("num_classes", backbone.num_classes)
    source = create_named("data", DATASETS, section, split=split)
    if options.random_flip and not source.may_flip:
        raise InputError(
            f"config.data.random_flip must be False for {source.name!r}: a mirrored "
            f"image is not one of its class."
        )
    if backbone.num_classes not in (0, source.num_classes):
        raise InputError(
            f"config.backbone.num_classes must be 0 (unconditional) or "
            f"{source.num_classes}, the classes of {source.name!r}, got "
            f"{backbone.num_classes}."
        )
    return source


def create_named(
    section: str, table: dict[str, Any], values: dict[str, Any], **more: Any
) -> Any:
    """Call the entry of a table that a section names with the section's other keys.

    Raises:
        InputError: Unknown name, or keys that its constructor refuses.
    """
    options = dict(values)
    name = options.pop("name", None)
    if name not in table:
        raise InputError(
            f"Unknown config.{section}.name {name!r}. Available: "
            f"{', '.join(sorted(table))}."
        )
    return call_with_section(section, table[name], options, **more)
