"""Post-hoc EMA: averages stored during a run make one of any width after it.

The snapshots lie in the run's posthoc_ema/, each with an item for each stored width,
checked as checkpoints are.
"""

import os
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from dig_jax.errors import CheckpointCorruptError, InputError
from dig_jax.interfaces import Params
from dig_jax.storage.checked_steps import CheckedSteps
from dig_jax.storage.checkpoint_record import Items, unflatten
from dig_jax.storage.fingerprint import named_leaves
from dig_jax.storage.power_ema import SIGMA_RELS, gamma_of_sigma_rel, solve_weights
from dig_jax.storage.state import TrainState

SNAPSHOT_ITEMS = {f"sigma_rel_{sigma_rel:.2f}": sigma_rel for sigma_rel in SIGMA_RELS}
MAX_PROFILE_ERROR = 0.1


class PosthocEma(NamedTuple):
    """Parameters averaged after the run.

    Attributes:
        params: The parameters.
        step: Step of the run that the average ends at.
        num_snapshots: Snapshots that it was made from.
        profile_error: Distance of their combined profile from the one asked for,
            relative to its norm.
    """

    params: Params
    step: int
    num_snapshots: int
    profile_error: float


def open_snapshots(
    workdir: str | os.PathLike, *, read_only: bool = False
) -> CheckedSteps:
    """The snapshots of the run in a workdir, all of which are kept.

    Raises:
        InputError: With `read_only`, where the run has none.
    """
    return CheckedSteps(
        epath.Path(workdir) / "posthoc_ema",
        items=tuple(SNAPSHOT_ITEMS),
        keep=None,
        read_only=read_only,
        what="post-hoc EMA snapshot",
        advice="A run keeps them where config.training.posthoc_ema is True.",
    )


def snapshot_items(state: TrainState) -> Items:
    """What a snapshot of a state holds."""
    averages = zip(SNAPSHOT_ITEMS, state.power_ema, strict=True)
    return {item: named_leaves(average) for item, average in averages}


def solve_posthoc_ema(
    workdir: str | os.PathLike,
    abstract_params: Params,
    sigma_rel: float,
    step: int | None = None,
) -> PosthocEma:
    """The average of a run's parameters with a width chosen now (arXiv:2312.02696).

    Reads every snapshot up to the step, one at a time, and adds them up in float64.

    Args:
        workdir: Of the run.
        abstract_params: A `jax.ShapeDtypeStruct` for each parameter, with the sharding
            that it should have.
        sigma_rel: Width of the average, relative to the step, from 0.01 to 0.25.
        step: Which snapshot it ends at; None for the newest.

    Raises:
        InputError: No snapshots or none of that step, those of another model, a width
            out of range, or too few snapshots for it.
        CheckpointCorruptError: A snapshot is damaged.
    """
    gamma_of_sigma_rel(sigma_rel)
    abstract = named_leaves(abstract_params)
    with open_snapshots(workdir, read_only=True) as snapshots:
        if step is None:
            step = max(snapshots.steps(), default=0)
        snapshots.read_one(snapshots.read_record, step)  # or say what there is
        steps = [s for s in snapshots.steps() if s <= step]
        weights, error = _solve(snapshots, steps, sigma_rel)
        total = {name: np.zeros(leaf.shape) for name, leaf in abstract.items()}
        for snapshot, of_step in zip(steps, weights, strict=True):
            for item, weight in zip(SNAPSHOT_ITEMS, of_step, strict=True):
                leaves = _read(snapshots, snapshot, item, abstract)
                for name, leaf in leaves.items():
                    total[name] += weight * np.asarray(leaf, np.float64)
    params = {
        name: jax.device_put(total[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in abstract.items()
    }
    return PosthocEma(unflatten(params, abstract_params), step, len(steps), error)


def _solve(
    snapshots: CheckedSteps, steps: list[int], sigma_rel: float
) -> tuple[np.ndarray, float]:
    """Weights [step, item] for the last of the steps, and the error of their profile.

    Raises:
        InputError: The error is too large.
    """
    weights, error = solve_weights(
        np.repeat(steps, len(SNAPSHOT_ITEMS)),
        np.tile(list(SNAPSHOT_ITEMS.values()), len(steps)),
        steps[-1],
        sigma_rel,
    )
    if error > MAX_PROFILE_ERROR:
        raise InputError(
            f"A post-hoc EMA of sigma_rel={sigma_rel} at step {steps[-1]} needs more "
            f"snapshots than the {len(steps)} up to there in {snapshots.directory}: "
            f"its profile would be off by {error:.0%}, more than "
            f"{MAX_PROFILE_ERROR:.0%}. Widths near "
            f"{' and '.join(map(str, SNAPSHOT_ITEMS.values()))} need fewer, as does a "
            f"later step; a run keeps more with a smaller "
            f"config.training.posthoc_every."
        )
    return weights.reshape(len(steps), -1), error


def _read(
    snapshots: CheckedSteps, step: int, item: str, abstract: dict
) -> dict[str, jax.Array]:
    def read(step: int) -> dict[str, jax.Array]:
        return snapshots.read_item(step, snapshots.read_record(step), item, abstract)

    try:
        return snapshots.read_one(read, step)
    except CheckpointCorruptError as error:
        raise CheckpointCorruptError(
            f"{error} Move the folder {snapshots.directory / str(step)} away to do "
            f"without it, at some loss of exactness."
        ) from error
