"""Arrays of a run on disk, step by step, that survive a kill and a flipped bit.

A step is a folder of items: named tables of arrays, and `meta` (JSON). Orbax writes it
in the background and puts a commit file last; a folder without one does not count.
Orbax does not notice damaged array data and casts a wrong dtype silently, so `meta`
also holds the shape, the dtype and a fingerprint of every leaf, and they are checked
whenever arrays are read.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from dig_jax.devices.sharding import wait_for_all
from dig_jax.errors import (
    CheckpointCorruptError,
    CheckpointSaveError,
    InputError,
    close_after,
)
from dig_jax.files.paths import is_remote
from dig_jax.storage.checkpoint_record import Items, make_record
from dig_jax.storage.kept_steps import NewestDue
from dig_jax.storage.meta_file import COMMIT_FILE, finished_steps, is_step_name
from dig_jax.storage.orbax_manners import quiet_orbax
from dig_jax.storage.step_folder import DamagedError, read_item, read_record, short

MB = 10**6

T = TypeVar("T")


class CheckedSteps:
    """The steps in one directory.

    With several processes every process makes the same calls.

    Args:
        directory: Holds one folder for each step; created if it is missing. One writer
            at a time; a new one clears away what a killed one left unfinished.
        items: Names of the tables in each step.
        keep: Number of newest steps to keep, of those that are due; None for all.
        is_due: Whether a step is. One that is not is kept until there is a newer one.
        read_only: For a reader beside a writer: creates and deletes nothing.
        what: What a step is called in messages.
        advice: What to do where there is none.

    Raises:
        InputError: `keep` below 1, or a missing directory with `read_only`.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        items: tuple[str, ...],
        keep: int | None,
        is_due: Callable[[int], bool] = lambda step: True,
        read_only: bool,
        what: str,
        advice: str,
    ):
        if keep is not None and keep < 1:
            raise InputError(f"keep must be at least 1 {what}, got {keep}.")
        path = epath.Path(directory)
        self.directory = path if is_remote(path) else path.resolve()
        self._files = {*items, "meta", "_CHECKPOINT_METADATA", COMMIT_FILE}
        self._what, self._advice = what, advice
        self._manager: ocp.CheckpointManager | None = None
        self._at_work = contextlib.ExitStack()
        self._saving: tuple[int, int] | None = None  # step, bytes
        if read_only:
            if not self.directory.is_dir():
                raise InputError(f"No directory {self.directory}. {advice}")
            return
        options = ocp.CheckpointManagerOptions(
            atomicity_options=ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            ),
            # Made in the background they leave threads behind after a failed save, for
            # which the process waits five minutes at its end.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            preservation_policy=ocp.checkpoint_managers.LatestN(None)
            if keep is None
            else NewestDue(keep, is_due),
        )
        self._delete_unfinished()
        with contextlib.ExitStack() as at_work:
            at_work.enter_context(quiet_orbax())
            self._manager = ocp.CheckpointManager(self.directory, options=options)
            # Until it is closed, because it saves in threads of its own.
            self._at_work = at_work.pop_all()

    def __enter__(self) -> "CheckedSteps":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        close_after(error, self.close, CheckpointSaveError)

    def save(self, step: int, items: Items, meta: dict) -> None:
        """Saves a step in the background, unless it is saved already.

        Returns once the arrays may be donated. Waits for the save before it.

        Args:
            step: The step.
            items: The arrays of each item by name.
            meta: What else belongs to the step, as JSON. `schema`, `step`, `versions`
                and `leaves` are added.

        Raises:
            InputError: The disk is too full for these arrays.
            CheckpointSaveError: The save before failed, or this one cannot start.
        """
        manager = self._writer()
        if not is_remote(self.directory) and not self.directory.is_dir():
            raise CheckpointSaveError(
                f"The {self._what} of step {step} could not be saved: {self.directory} "
                "was deleted or moved while the run trained."
            )
        if step in manager.all_steps():
            return
        num_bytes = self.check_free_space(items)
        record = make_record(step, meta, items)
        self._saving = (step, num_bytes)
        try:
            manager.save(
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
            with self._at_work:
                self._manager.close()
            self._manager = None

    def delete(self, steps: Iterable[int]) -> None:
        """Removes those of the steps that are there."""
        manager = self._writer()
        there = sorted(set(steps) & set(manager.all_steps()))
        wait_for_all("steps are listed")  # before the first of them goes away
        for step in there:
            manager.delete(step)

    def steps(self) -> list[int]:
        """The finished steps, oldest first, as they are on disk now."""
        return finished_steps(self.directory)

    def read_one(self, read: Callable[[int], T], step: int) -> T:
        """What `read` makes of one step, which may raise `DamagedError`.

        Raises:
            InputError: There is no such step.
            CheckpointCorruptError: It is damaged.
        """
        steps = self.steps()
        if not steps:
            raise self._none_finished()
        if step not in steps:
            raise InputError(
                f"No {self._what} of step {step} in {self.directory}. "
                f"Available: {', '.join(map(str, steps))}."
            )
        try:
            return read(step)
        except DamagedError as damage:
            raise CheckpointCorruptError(
                f"The {self._what} of step {step} in {self.directory} is damaged: "
                f"{damage}. Finished steps: {', '.join(map(str, steps))}."
            ) from damage

    def newest_sound(self, read: Callable[[int], T]) -> T:
        """What `read` makes of the newest step for which it raises no `DamagedError`.

        Raises:
            InputError: There is no step.
            CheckpointCorruptError: Every step is damaged.
        """
        reasons: dict[int, str] = {}
        # Listed anew each time: a writer may finish a step, or delete one, meanwhile.
        while steps := [step for step in self.steps() if step not in reasons]:
            step = steps[-1]
            try:
                return read(step)
            except DamagedError as damage:
                reasons[step] = str(damage)
                logging.warning(
                    "The %s of step %d in %s is damaged: %s. %s",
                    self._what,
                    step,
                    self.directory,
                    damage,
                    f"Trying step {steps[-2]}." if steps[1:] else "It is the last one.",
                )
        if not reasons:
            raise self._none_finished()
        listed = "\n".join(f"  step {step}: {why}" for step, why in reasons.items())
        raise CheckpointCorruptError(
            f"Every {self._what} in {self.directory} is damaged:\n{listed}\n"
            "Restore the files from a copy, or start anew with another --workdir."
        )

    def read_record(self, step: int) -> dict:
        """The `meta` of a step; see `step_folder.read_record`."""
        return read_record(self.directory / str(step), self._what)

    def read_item(
        self, step: int, record: dict, item: str, abstract: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        """The arrays of one item by name; see `step_folder.read_item`."""
        return read_item(self.directory / str(step), record, item, abstract, self._what)

    def _writer(self) -> ocp.CheckpointManager:
        """Orbax's manager, with no save under way."""
        if self._manager is None:
            raise InputError(f"{self.directory} is read-only or closed: cannot save.")
        self.wait()
        return self._manager

    def _delete_unfinished(self) -> None:
        """Removes what a killed save, or a killed removal, left behind.

        Orbax's own cleaning removes any folder without a commit file, whoever made it.
        """
        if jax.process_index() > 0 or not self.directory.is_dir():
            return
        for folder in self.directory.iterdir():
            if not is_step_name(folder.name) or not folder.is_dir():
                continue
            files = {path.name for path in folder.iterdir()}
            if COMMIT_FILE not in files and files <= self._files:
                folder.rmtree()

    def _free_bytes(self) -> int | None:
        """Free space on the disk as process 0 sees it; None if it cannot be known."""
        free = None
        if not is_remote(self.directory) and self.directory.is_dir():
            free = shutil.disk_usage(self.directory).free
        return free

    def check_free_space(self, items: Items) -> int:
        """The bytes that saving a step takes.

        Raises:
            InputError: The disk has not so many to spare.
        """
        leaves = [leaf for item in items.values() for leaf in item.values()]
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
        if free is not None:
            disk = os.statvfs(self.directory)
            if disk.f_files and not disk.f_favail:  # some count none
                room += ", and room for no more files"
        return CheckpointSaveError(
            f"The {self._what} of step {step} could not be saved in {self.directory}: "
            f"{short(error)}. It needs {num_bytes / MB:.1f} MB{room}. "
            f"{self._finished()}"
        )

    def _finished(self) -> str:
        steps = self.steps()
        return f"Finished steps, intact: {', '.join(map(str, steps)) or 'none'}."

    def _none_finished(self) -> InputError:
        return InputError(
            f"No finished {self._what} in {self.directory}. {self._advice}"
        )
