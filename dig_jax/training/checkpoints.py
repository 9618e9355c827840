"""Checkpoints that survive a kill, a full disk and a flipped bit.

A step is a folder: `train` (step, parameters, optimizer), `ema` (alone, so that a
sampler reads nothing else) and `meta` (JSON). Orbax writes it in the background and
puts a commit file last; a folder without one is not a checkpoint. Orbax does not notice
damaged array data and casts a wrong dtype silently, so `meta` also holds the shape, the
dtype and a fingerprint of every leaf, and they are checked whenever arrays are read.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from dig_jax.errors import CheckpointCorruptError, CheckpointSaveError, InputError
from dig_jax.interfaces import Params
from dig_jax.training.checkpoint_record import (
    SCHEMA,
    describe_array,
    from_items,
    make_record,
    sha256_of,
    to_items,
    unflatten,
)
from dig_jax.training.fingerprint import fingerprints, named_leaves
from dig_jax.training.orbax_manners import patient_event_loops, quiet_orbax
from dig_jax.training.state import TrainState

COMMIT_FILE = ocp.path.atomicity_types.COMMIT_SUCCESS_FILE
STEP_FILES = {"train", "ema", "meta", "_CHECKPOINT_METADATA", COMMIT_FILE}
MB = 10**6

T = TypeVar("T")


class _DamagedError(Exception):
    """A step that is finished but cannot be trusted: falls back to the one before."""


class Checkpoints:
    """The checkpoints of a run, in one directory.

    With several processes every process makes the same calls.

    Args:
        directory: Holds one folder for each step; created if it is missing. One writer
            at a time; a new one clears away what a killed one left unfinished.
        keep: Number of newest steps to keep.
        read_only: For a reader beside a writer: creates and deletes nothing.

    Raises:
        InputError: `keep` below 1, or a missing directory with `read_only`.
    """

    def __init__(
        self, directory: str | os.PathLike, *, keep: int = 3, read_only: bool = False
    ):
        if keep < 1:
            raise InputError(f"keep must be at least 1 checkpoint, got {keep}.")
        path = epath.Path(directory)
        self.directory = path if _is_remote(path) else path.expanduser().resolve()
        self._manager: ocp.CheckpointManager | None = None
        self._saving: tuple[int, int] | None = None  # step, bytes
        self._passed_over: set[int] = set()  # damaged steps newer than the restored one
        if read_only:
            if not self.directory.is_dir():
                raise InputError(f"No directory {self.directory}. {self._how_to()}")
            return
        options = ocp.CheckpointManagerOptions(
            atomicity_options=ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            ),
            # Made in the background they leave threads behind after a failed save, for
            # which the process waits five minutes at its end.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
        )
        self._delete_unfinished()
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except CheckpointSaveError as save_error:  # must not hide the first error
            logging.error("%s", save_error)

    def save(self, state: TrainState, meta: dict) -> None:
        """Saves a state in the background, unless its step is saved already.

        Returns once the state may be donated. Waits for the save before it.

        Args:
            state: The state; `state.step` names the checkpoint.
            meta: What else a resumed run needs, as JSON. `schema`, `step`, `versions`
                and `leaves` are added.

        Raises:
            InputError: The disk is too full for this state.
            CheckpointSaveError: The save before failed, or this one cannot start.
        """
        if self._manager is None:
            raise InputError(f"{self.directory} is read-only or closed: cannot save.")
        self.wait()
        step = int(state.step)
        self._delete_passed_over()
        if step in self._manager.all_steps():
            return
        items = to_items(state)
        num_bytes = self.check_free_space(state)
        record = make_record(step, meta, items)
        self._saving = (step, num_bytes)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    meta=ocp.args.JsonSave(record),
                    **{k: ocp.args.StandardSave(v) for k, v in items.items()},
                ),
                force=True,  # the caller decides when to save
            )
        except Exception as error:
            raise self._save_error(error) from error

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
            CheckpointSaveError: It failed.
        """
        if self._manager is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._save_error(error) from error
        self._saving = None

    def close(self) -> None:
        """Waits for the save under way and ends the background threads."""
        if self._manager is None:
            return
        try:
            self.wait()
        finally:
            self._manager.close()
            self._manager = None

    def steps(self) -> list[int]:
        """The finished steps, oldest first, as they are on disk now."""
        if not self.directory.is_dir():
            return []
        return sorted(
            int(folder.name)
            for folder in self.directory.iterdir()
            if _is_step_name(folder.name) and (folder / COMMIT_FILE).exists()
        )

    def latest_step(self) -> int | None:
        """The newest finished step; None if there is none."""
        return max(self.steps(), default=None)

    def restore(self, abstract_state: TrainState) -> tuple[TrainState, dict]:
        """Reads the newest sound state; warns of each damaged step that it passes over.

        Args:
            abstract_state: A `jax.ShapeDtypeStruct` for each leaf; without a sharding
                the leaf goes to the first device.

        Returns:
            The state, and the `meta` it was saved with.

        Raises:
            InputError: There is no checkpoint, or it is one of another model.
            CheckpointCorruptError: Every checkpoint is damaged.
        """

        def read(step: int) -> tuple[TrainState, dict]:
            record = self._read_record(step)
            items = {
                name: self._read_item(step, record, name, abstract)
                for name, abstract in to_items(abstract_state).items()
            }
            return from_items(items, abstract_state), record

        state, record = self._newest_sound(read)
        self._passed_over = {s for s in self.steps() if s > record["step"]}
        return state, record

    def restore_ema(
        self, abstract_params: Params, step: int | None = None
    ) -> tuple[Params, int, dict]:
        """Reads the averaged parameters and nothing else.

        Args:
            abstract_params: A `jax.ShapeDtypeStruct` for each parameter.
            step: Which checkpoint; None for the newest sound one.

        Returns:
            The parameters, their step, and the `meta` of the checkpoint.

        Raises:
            InputError: There is no such checkpoint, or it is one of another model.
            CheckpointCorruptError: It is damaged.
        """
        abstract = named_leaves(abstract_params)

        def read(step: int) -> tuple[Params, int, dict]:
            record = self._read_record(step)
            leaves = self._read_item(step, record, "ema", abstract)
            return unflatten(leaves, abstract_params), step, record

        return self._newest_sound(read) if step is None else self._read_one(read, step)

    def read_meta(self, step: int | None = None) -> dict:
        """Reads `meta` without the arrays; of the newest step that has it, if None."""
        if step is None:
            return self._newest_sound(self._read_record)
        return self._read_one(self._read_record, step)

    def _read_one(self, read: Callable[[int], T], step: int) -> T:
        steps = self.steps()
        if not steps:
            raise self._no_checkpoint()
        if step not in steps:
            raise InputError(
                f"No checkpoint of step {step} in {self.directory}. "
                f"Available: {', '.join(map(str, steps))}."
            )
        try:
            return read(step)
        except _DamagedError as damage:
            raise CheckpointCorruptError(
                f"The checkpoint of step {step} in {self.directory} is damaged: "
                f"{damage}. Finished steps: {', '.join(map(str, steps))}."
            ) from damage

    def _newest_sound(self, read: Callable[[int], T]) -> T:
        reasons: dict[int, str] = {}
        # Listed anew each time: a writer may finish a step, or delete one, meanwhile.
        while steps := [step for step in self.steps() if step not in reasons]:
            step = steps[-1]
            try:
                return read(step)
            except _DamagedError as damage:
                reasons[step] = str(damage)
                logging.warning(
                    "The checkpoint of step %d in %s is damaged: %s. %s",
                    step,
                    self.directory,
                    damage,
                    f"Trying step {steps[-2]}." if steps[1:] else "It is the last one.",
                )
        if not reasons:
            raise self._no_checkpoint()
        listed = "\n".join(f"  step {step}: {why}" for step, why in reasons.items())
        raise CheckpointCorruptError(
            f"Every checkpoint in {self.directory} is damaged:\n{listed}\n"
            "Restore the files from a copy, or start anew with another --workdir."
        )

    def _read_record(self, step: int) -> dict:
        """The `meta` of a step, after checking that it is what was written."""
        record, reason = {}, None
        try:
            saved = ocp.JsonCheckpointHandler().restore(
                self.directory / str(step) / "meta", args=ocp.args.JsonRestore()
            )
            record = saved["record"]
            if saved["sha256"] != sha256_of(record) or record["step"] != step:
                reason = "meta does not match its checksum or its folder"
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = f"meta cannot be read ({_short(error)})"
        _raise_if_damaged(reason)
        if record["schema"] != SCHEMA:
            raise InputError(
                f"The checkpoint of step {step} in {self.directory} has schema "
                f"{record['schema']}; this version of dig_jax reads schema {SCHEMA}. "
                "Use the version that wrote it."
            )
        return record

    def _read_item(
        self, step: int, record: dict, item: str, abstract: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        """The arrays of one item by name, checked against their fingerprints."""
        saved = record["leaves"][item]
        self._check_same_model(step, item, saved, abstract)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        targets = {
            name: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=leaf.sharding or device
            )
            for name, leaf in abstract.items()
        }
        leaves, reason = {}, None
        try:
            with patient_event_loops():
                leaves = ocp.StandardCheckpointHandler().restore(
                    self.directory / str(step) / item,
                    args=ocp.args.StandardRestore(targets),
                )
        except MemoryError:
            raise
        except Exception as error:  # whatever a parser says to random bytes
            reason = f"{item} cannot be read ({_short(error)})"
        _raise_if_damaged(reason)
        found = fingerprints(leaves)
        wrong = [
            name
            for name, target in targets.items()
            if found[name] != saved[name]["fingerprint"]
            # A typed key comes back untyped where Orbax has lost its own metadata.
            or describe_array(leaves[name]) != describe_array(target)
        ]
        if wrong:
            reason = f"{item} has other bits than were saved in {_some(wrong)}"
        _raise_if_damaged(reason)
        return leaves

    def _check_same_model(
        self, step: int, item: str, saved: Mapping, abstract: Mapping[str, Any]
    ) -> None:
        there = {name: leaf["array"] for name, leaf in saved.items()}
        here = {name: describe_array(leaf) for name, leaf in abstract.items()}
        differences = [
            f"{item}: {name} is {there.get(name, 'missing')} in the checkpoint and "
            f"{here.get(name, 'missing')} in this model"
            for name in sorted(there | here)
            if there.get(name) != here.get(name)
        ]
        if differences:
            raise InputError(
                f"The checkpoint of step {step} in {self.directory} is of another "
                f"model or optimizer. {_some(differences, separator='; ')}. Use the "
                "configuration that it was trained with, or another --workdir."
            )

    def _delete_unfinished(self) -> None:
        """Removes what a killed save, or a killed removal, left behind.

        Orbax's own cleaning removes any folder without a commit file, whoever made it.
        """
        if jax.process_index() > 0 or not self.directory.is_dir():
            return
        for folder in self.directory.iterdir():
            if not _is_step_name(folder.name) or not folder.is_dir():
                continue
            files = {path.name for path in folder.iterdir()}
            if COMMIT_FILE not in files and files <= STEP_FILES:
                folder.rmtree()

    def _delete_passed_over(self) -> None:
        """Removes the damaged steps that the run fell back from: it makes them anew."""
        assert self._manager is not None
        for step in sorted(self._passed_over & set(self._manager.all_steps())):
            logging.warning("Deleting the damaged checkpoint of step %d.", step)
            self._manager.delete(step)
        self._passed_over.clear()

    def _free_bytes(self) -> int | None:
        """Free space on the disk as process 0 sees it; None if it cannot be known."""
        free = None
        if not _is_remote(self.directory) and self.directory.is_dir():
            free = shutil.disk_usage(self.directory).free
        return free

    def check_free_space(self, state: TrainState) -> int:
        """The bytes that saving a state takes.

        Raises:
            InputError: The disk has not so many to spare.
        """
        leaves = [leaf for item in to_items(state).values() for leaf in item.values()]
        num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        free = self._free_bytes()
        needed = int(1.1 * num_bytes) + MB
        enough = free is None or free >= needed
        if jax.process_count() > 1:  # all of them must refuse, or none
            enough = bool(multihost_utils.broadcast_one_to_all(enough))
        if not enough:
            raise InputError(
                f"not enough disk: needs {needed / MB:.1f} MB in {self.directory}, "
                f"{(free or 0) / MB:.1f} MB free. {self._finished()}"
            )
        return num_bytes

    def _save_error(self, error: Exception) -> CheckpointSaveError:
        step, num_bytes = self._saving or (-1, 0)
        self._saving = None
        free = self._free_bytes()
        room = "" if free is None else f", {free / MB:.1f} MB are free"
        return CheckpointSaveError(
            f"The checkpoint of step {step} could not be saved in {self.directory}: "
            f"{_short(error)}. It needs {num_bytes / MB:.1f} MB{room}. "
            f"{self._finished()}"
        )

    def _finished(self) -> str:
        steps = self.steps()
        return f"Finished steps, intact: {', '.join(map(str, steps)) or 'none'}."

    def _no_checkpoint(self) -> InputError:
        return InputError(
            f"No finished checkpoint in {self.directory}. {self._how_to()}"
        )

    def _how_to(self) -> str:
        return (
            "Train first: python -m dig_jax.main --mode=train --config=FILE "
            f"--workdir={self.directory.parent}"
        )


def _raise_if_damaged(reason: str | None) -> None:
    """Raises on every process if any of them has a reason.

    Called before anything that the processes compute together, so that none waits for
    one that has passed over the step.
    """
    damaged = reason is not None
    if jax.process_count() > 1:
        damaged = multihost_utils.process_allgather(damaged).any()
    if damaged:
        raise _DamagedError(reason or "another process could not read it")


def _is_step_name(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _some(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return separator.join(names[:3]) + more


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


quiet_orbax()
