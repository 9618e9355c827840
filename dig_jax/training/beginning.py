"""Parameters of another run that a run begins with, as in fine-tuning."""

from collections.abc import Mapping
from typing import Any

import jax

from dig_jax.errors import InputError
from dig_jax.experiment import (
    FREE_KEYS,
    Experiment,
    check_run_keys,
    create_experiment,
    differing_keys,
)
from dig_jax.files.paths import CHECKPOINTS, AnyPath, open_workdir
from dig_jax.interfaces import Params
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.export_folder import is_export, read_manifest, read_parameters
from dig_jax.storage.fingerprint import digest_of, named_leaves
from dig_jax.storage.run_config import find_saved_config, restore_run_config

MOST_NAMED = 4
_MEANING = ("backbone.", "sde.", "objective.")
"""Sections that say what parameters mean."""


def check_beginning(experiment: Experiment, workdir: AnyPath) -> str:
    """Check that a run can begin with the parameters that `training.init_from` names.

    Args:
        experiment: Of the run that shall begin.
        workdir: Its own; nothing is checked where it has begun.

    Returns:
        What the other run's parameters meant that is otherwise here; "" for nothing.

    Raises:
        InputError: There is no such run, or its parameters have other names or shapes.
    """
    place = experiment.training.init_from
    if not place or find_saved_config(workdir) is not None:
        return ""
    source = open_workdir(place)
    saved = restore_run_config(source, write=False)
    check_run_keys(saved, source)
    other = create_experiment(saved)
    if not is_export(source):
        with Checkpoints(source / CHECKPOINTS, read_only=True) as checkpoints:
            checkpoints.read_meta()
    wanted, found = (_shapes(one) for one in (experiment, other))
    wrong = [
        f"{name} must be {_shape(wanted, name)}, got {_shape(found, name)}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = len(wrong) - MOST_NAMED
        here, there = experiment.backbone.num_classes, other.backbone.num_classes
        classes = f" ({there} classes there, {here} here)" if here != there else ""
        raise InputError(
            f"--init_from={place} has parameters of another network{classes}: "
            f"{'; '.join(wrong[:MOST_NAMED])}"
            f"{f'; and {more} more' if more > 0 else ''}. Train the same network, or "
            "leave --init_from out."
        )
    changes = [
        f"{key}={value}"
        for key, value in differing_keys(other, experiment).items()
        if key.startswith(_MEANING) and key not in FREE_KEYS
    ]
    mine, theirs = experiment.data.class_names, other.data.class_names
    if mine and theirs and mine != theirs:
        changes.append(f"classes {', '.join(mine[:MOST_NAMED])} ...")
    return ", ".join(changes)


def read_beginning(place: str, abstract: Params) -> tuple[Params, dict[str, Any]]:
    """The averaged parameters of a run, or of an export, to begin another with.

    Args:
        place: Workdir or export.
        abstract: A `jax.ShapeDtypeStruct` with a sharding for each parameter.

    Returns:
        The parameters; and where they are from, as a run keeps it: `workdir`, `step`,
        `parameters_digest`.

    Raises:
        InputError: There are none, or they are of another network.
    """
    workdir = open_workdir(place)
    if is_export(workdir):
        manifest = read_manifest(workdir)
        width = manifest["sigma_rel"]
        params, step = read_parameters(
            workdir, manifest, abstract, step=None, sigma_rel=width
        )
    else:
        with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
            params, step, _ = checkpoints.restore_ema(abstract)
    digest = digest_of(params)
    return params, {"workdir": place, "step": step, "parameters_digest": digest}


def tell_beginning(record: Mapping[str, Any]) -> str:
    """In words where a run's first parameters are from."""
    return (
        f"the averaged parameters of step {record['step']} of {record['workdir']} "
        f"(digest {record['parameters_digest']})"
    )


def _shapes(experiment: Experiment) -> dict[str, tuple[str, tuple[int, ...]]]:
    leaves = jax.eval_shape(experiment.backbone.init, jax.random.key(0))
    return {
        name: (str(leaf.dtype), leaf.shape)
        for name, leaf in named_leaves(leaves).items()
    }


def _shape(shapes: Mapping[str, tuple[str, tuple[int, ...]]], name: str) -> str:
    if name not in shapes:
        return "none"
    dtype, shape = shapes[name]
    return f"{dtype}{list(shape)}"
