"""A configuration's experiment: all sections checked, and what they name made."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.config import (
    check_section,
    check_sections,
    config_differences,
    config_to_json,
    with_values,
)
from dig_jax.data import DATASETS
from dig_jax.devices.sharding import create_mesh
from dig_jax.diffusion import SDES, check_objective, check_variance_loss
from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath
from dig_jax.interfaces import SDE, Backbone
from dig_jax.models import BACKBONES
from dig_jax.options import (
    FREE_SECTIONS,
    SECTIONS,
    DataOptions,
    EvaluationOptions,
    LoggingOptions,
    MeshOptions,
    NamedOptions,
    Objective,
    OptimizerOptions,
    SampleOptions,
    TrainingOptions,
)
from dig_jax.options.keys import (
    Key,
    call_with_section,
    check_keywords,
    check_known,
    keys_of,
)

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "backbone": BACKBONES,
    "data": DATASETS,
    "sde": SDES,
}
"""What the names in these sections stand for."""

# Keywords of constructors that other sections give.
_GIVEN = {"backbone": ("image_shape", "null_label"), "data": ("split",), "sde": ()}


@dataclass(frozen=True)
class Experiment:
    """A configuration: its sections, checked, and what they name, made.

    Two are equal where all their keys are, whether written or left at their defaults.

    Attributes:
        config: As it is written, for config.json and its like; nobody else reads it.
        seed: Of the first parameters, the order of records, and all noise.
        backbone_options: The backbone section.
        sde_options: The sde section.
        data: The data section, and so on.
        mesh_options: The mesh section.
        backbone: The network.
        sde: The forward process.
    """

    config: ConfigDict = field(compare=False)
    seed: int
    backbone_options: NamedOptions
    sde_options: NamedOptions
    data: DataOptions
    objective: Objective
    optimizer: OptimizerOptions
    training: TrainingOptions
    sample: SampleOptions
    evaluation: EvaluationOptions
    logging: LoggingOptions
    mesh_options: MeshOptions
    backbone: Backbone = field(compare=False)
    sde: SDE = field(compare=False)

    @cached_property
    def mesh(self) -> Mesh:
        """The devices; looked for when first asked for, as not all modes need any.

        Raises:
            InputError: The mesh section does not fit them.
        """
        return create_mesh(self.mesh_options)

    @property
    def config_digest(self) -> str:
        """16 hex digits of what is written, but for sections that are free."""
        written = self.config.to_dict()
        kept = {k: v for k, v in written.items() if k not in FREE_SECTIONS}
        text = config_to_json(ConfigDict(kept))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def section(self, name: str) -> dict[str, Any]:
        """All keys of a section with their values."""
        named = name in ("backbone", "sde", "mesh")
        options = getattr(self, f"{name}_options" if named else name)
        values = {f.name: getattr(options, f.name) for f in fields(options)}
        return values | values.pop("keywords", {})

    def changed(self, values: Mapping[str, Any] | None = None) -> "Experiment":
        """The experiment with other values of some keys, made anew.

        Args:
            values: By key, as in `training.num_steps`.

        Raises:
            InputError: One that does not work.
        """
        return create_experiment(with_values(self.config, values or {}))


def create_experiment(config: ConfigDict) -> Experiment:
    """Check all sections of a configuration, and make what they name.

    Neither files nor devices are looked for yet.

    Raises:
        InputError: Anything in the configuration that does not work.
    """
    config = check_sections(config, "the configuration")
    data = _create_data_options(config.data.to_dict())
    objective: Objective = check_section(config, "objective")
    sde_options = check_named_section(config, "sde")
    sde = SDES[sde_options.name](**sde_options.keywords)
    network = check_named_section(config, "backbone")
    backbone = BACKBONES[network.name](
        **network.keywords,
        image_shape=data.image_shape,
        null_label=objective.label_dropout > 0,
    )
    check_variance_loss(objective, sde, backbone)
    return Experiment(
        config=config,
        seed=config.seed,
        backbone_options=network,
        sde_options=sde_options,
        data=data,
        objective=check_objective(objective, sde),
        optimizer=check_section(config, "optimizer"),
        training=check_section(config, "training"),
        sample=check_section(config, "sample"),
        evaluation=check_section(config, "evaluation"),
        logging=check_section(config, "logging"),
        mesh_options=check_section(config, "mesh"),
        backbone=backbone,
        sde=sde,
    )


def check_named_section(config: ConfigDict, section: str) -> NamedOptions:
    """The backbone or sde section, checked but for how its values go together.

    Raises:
        InputError: An unknown name or key, or a value of a wrong type or range.
    """
    values = config[section].to_dict()
    name, constructor = _find_constructor(section, values)
    own = {key: value for key, value in values.items() if key != "name"}
    keywords = check_keywords(section, constructor, own, _GIVEN[section])
    return NamedOptions(name, keywords)


def check_run_keys(config: ConfigDict, workdir: AnyPath) -> None:
    """Raise InputError for a run's configuration with names or keys of another version.

    Args:
        config: As it is written.
        workdir: The run's.
    """
    try:
        for section in SECTIONS:
            values = config[section].to_dict()
            name = _find_constructor(section, values)[0] if section in TABLES else None
            check_known(section, values, section_keys(section, name))
    except InputError as error:
        raise InputError(
            f"The run in {workdir} was made by an older or another version of dig_jax "
            f"than this one, or its config.json was changed: {error}"
        ) from None


def _create_data_options(values: dict[str, Any]) -> DataOptions:
    """The data section; a data set's own size is the default for the size."""
    _, constructor = _find_constructor("data", values)
    shared, defaults = keys_of(DataOptions), section_defaults("data", values)
    others = (*_GIVEN["data"], *shared)
    own = [key for key in keys_of(constructor) if key not in others]
    check_known("data", values, [*shared, *own])
    keywords = {key: value for key, value in values.items() if key in own}
    mine = {key: value for key, value in values.items() if key in shared}
    return call_with_section(
        "data",
        DataOptions,
        {key: defaults[key] for key in shared if key in defaults} | mine,
        keywords=check_keywords("data", constructor, keywords, others),
    )


def _find_constructor(
    section: str, values: Mapping[str, Any]
) -> tuple[str, Callable[..., Any]]:
    """The name in a section, and the entry of its table."""
    name, table = values.get("name", ""), TABLES[section]
    if name not in table:
        raise InputError(
            f"Unknown config.{section}.name {name!r}. Available: "
            f"{', '.join(sorted(table))}."
        )
    return name, table[name]


def section_keys(section: str, name: str | None = None) -> dict[str, Key]:
    """The keys of a section; where they depend on a name, of all names or that one."""
    keys = keys_of(SECTIONS[section])
    for entry, constructor in TABLES.get(section, {}).items():
        if name in (None, entry):
            given = _GIVEN[section]
            own = keys_of(constructor)
            keys = {k: v for k, v in own.items() if k not in given} | keys
    return keys


def section_defaults(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The default of each key that a section may leave out, for the name that it has.

    A data set that has a default of its own for a key of all of them goes first.
    """
    keys = keys_of(SECTIONS[section])
    constructor = TABLES.get(section, {}).get(values.get("name", ""))
    if constructor is not None:
        keys |= {
            name: key
            for name, key in keys_of(constructor).items()
            if name not in _GIVEN[section]
            and not (name in keys and key.default is None)
        }
    return {name: key.default for name, key in keys.items() if key.has_default}


def complete_section(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A section, as it is written, with what it leaves at its defaults."""
    return section_defaults(section, values) | dict(values)


def complete_config(config: ConfigDict) -> ConfigDict:
    """A configuration, as it is written, with what it leaves at its defaults.

    It need not work: so a run goes on also when a key has come that was not there when
    it began, and is told of one that has gone.
    """
    written = config.to_dict()
    completed = {
        name: complete_section(name, written.get(name, {})) for name in SECTIONS
    }
    return ConfigDict({**written, **completed})


def _marked_keys() -> dict[str, Key]:
    return {
        f"{section}.{name}": key
        for section in SECTIONS
        for name, key in sorted(section_keys(section).items())
    }


FREE_KEYS = tuple(name for name, key in _marked_keys().items() if key.marks.free)
"""What may differ between a run and its restart: nothing here changes what the
parameters mean or which steps have been taken."""

COMPUTING_KEYS = tuple(
    name
    for name, key in _marked_keys().items()
    if key.marks.free and key.marks.bits and not name.startswith("mesh.")
)
"""Keys that are free on a restart, and add the same numbers up in another order; those
of the mesh are not here, as it is noted as it came out."""


def check_same_run(
    old: ConfigDict, new: ConfigDict, workdir: str | AnyPath
) -> list[str]:
    """What a restart changes, a line for each key.

    Raises:
        InputError: A key differs that makes it another run.
    """
    changes = config_differences(complete_config(old), complete_config(new))
    lines = {key: f"{key}: {a!r} -> {b!r}" for key, (a, b) in changes.items()}
    fixed = [
        line
        for key, line in lines.items()
        if key not in FREE_KEYS and key.partition(".")[0] not in FREE_SECTIONS
    ]
    if fixed:
        raise InputError(
            f"{workdir} holds a run of another configuration. These keys differ (there "
            f"-> here): {'; '.join(fixed)}. Use another --workdir, or the same values."
        )
    return list(lines.values())


def differing_keys(reference: Experiment, other: Experiment) -> dict[str, Any]:
    """Values of the keys in which an experiment differs from another, by name.

    Of keys that the other does not have, those that are not at their defaults.
    """
    found = {}
    for section in SECTIONS:
        theirs, mine = reference.section(section), other.section(section)
        defaults = section_defaults(section, mine)
        for key, value in sorted(mine.items()):
            if value != theirs.get(key, defaults.get(key)):
                found[f"{section}.{key}"] = value
    return found
