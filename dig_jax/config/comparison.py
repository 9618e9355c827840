"""The configuration of a comparison: what all its runs share, and each variant's."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dig_jax.config import PARTS_OF_COMPARISON, check_sections
from dig_jax.errors import InputError
from dig_jax.options import SECTIONS
from dig_jax.options.compare import CompareOptions
from dig_jax.options.keys import call_with_section


class Comparison(NamedTuple):
    """The configuration of a comparison, in parts.

    Attributes:
        written: As it is written, for config.json.
        options: How it is made.
        runs: The complete configuration of each variant, the reference first.
    """

    written: dict[str, Any]
    options: CompareOptions
    runs: dict[str, ConfigDict]


def read_comparison(config: ConfigDict) -> Comparison:
    """The parts of a comparison's configuration.

    Args:
        config: `base`, a complete configuration; `variants`, for each name the sections
            in which it differs (a section with a `name` replaces the base's, another
            changes single keys); `compare`, the options.

    Raises:
        InputError: Other parts, no variants, or options that do not work.
    """
    _check_parts(config)
    options = call_with_section("compare", CompareOptions, config.compare.to_dict())
    runs = {
        name: vary(config.base, name, sections.to_dict())
        for name, sections in config.variants.items()
    }
    for key, names in (
        ("reference", (options.reference,)),
        ("controls", options.controls),
    ):
        for name in names:
            if name not in runs:
                raise InputError(
                    f"Unknown compare.{key} {name!r}. Variants: {', '.join(runs)}."
                )
    # A ConfigDict keeps no order: the reference first, the others by name.
    runs = {options.reference: runs.pop(options.reference), **runs}
    return Comparison(config.to_dict(), options, runs)


def choose_variants(comparison: Comparison, names: str) -> Comparison:
    """A comparison of some of its variants; `names` has commas between them.

    Where the reference is left out, the first one named takes its place; controls that
    are left out judge nobody.

    Raises:
        InputError: An unknown name, or one twice.
    """
    chosen = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen if name not in comparison.runs]
    if unknown or len(set(chosen)) < len(chosen):
        raise InputError(
            f"--variants must be different ones of "
            f"{', '.join(sorted(comparison.runs))}, got {names!r}."
        )
    reference = comparison.options.reference
    reference = reference if reference in chosen else chosen[0]
    controls = tuple(n for n in comparison.options.controls if n in chosen)
    written = copy.deepcopy(comparison.written)
    written["variants"] = {name: written["variants"][name] for name in chosen}
    written["compare"] |= {"reference": reference, "controls": controls}
    return Comparison(
        written,
        replace(comparison.options, reference=reference, controls=controls),
        {n: comparison.runs[n] for n in (reference, *sorted({*chosen} - {reference}))},
    )


def vary(base: ConfigDict, name: str, sections: Mapping[str, Any]) -> ConfigDict:
    """The base's configuration with a variant's sections.

    Raises:
        InputError: A section that does not exist.
    """
    config = copy.deepcopy(base)
    config.unlock()
    for section, values in sections.items():
        if section not in SECTIONS:
            raise InputError(
                f"Variant {name!r} has an unknown section {section!r}. Available: "
                f"{', '.join(SECTIONS)}."
            )
        merged = {} if "name" in values else dict(config.get(section, {}))
        config[section] = ConfigDict({**merged, **values})
    return config


def _check_parts(config: ConfigDict) -> None:
    parts = PARTS_OF_COMPARISON
    if not isinstance(config, ConfigDict) or set(config) != set(parts):
        raise InputError(
            f"The configuration of a comparison has the parts {', '.join(parts)} (see "
            f"configs/compare_digits.py), got {', '.join(sorted(config)) or 'nothing'}."
        )
    check_sections(config.base, "base of the comparison")
    if not config.variants:
        raise InputError("A comparison needs variants, got none.")
    for name in config.variants:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(
                f"A variant's name is made of letters, digits, _ and -, as it is a "
                f"folder, got {name!r}."
            )
