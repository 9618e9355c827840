"""The checkpoints of a run: states that it can go on from, and averages to sample with.

A step has the items `train` (step, parameters, optimizer) and `ema` (alone, so that a
sampler reads nothing else); `checked_steps` keeps them.
"""

import os
import shlex
from collections.abc import Callable

from absl import logging
from etils import epath

from dig_jax.errors import CheckpointCorruptError
from dig_jax.interfaces import Params
from dig_jax.storage.checked_steps import CheckedSteps
from dig_jax.storage.checkpoint_record import from_items, to_items, unflatten
from dig_jax.storage.fingerprint import named_leaves
from dig_jax.storage.state import TrainState


class Checkpoints:
    """The checkpoints of a run, in one directory.

    With several processes every process makes the same calls.

    Args:
        directory: Holds one folder for each step; created if it is missing. One writer
            at a time; a new one clears away what a killed one left unfinished.
        keep: Number of newest steps to keep, of those that are due.
        is_due: Whether a step is. One that is not is kept until there is a newer one.
        read_only: For a reader beside a writer: creates and deletes nothing.

    Raises:
        InputError: `keep` below 1, or a missing directory with `read_only`.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int = 3,
        is_due: Callable[[int], bool] = lambda step: True,
        read_only: bool = False,
    ):
        self._steps = CheckedSteps(
            directory,
            items=("train", "ema"),
            keep=keep,
            is_due=is_due,
            read_only=read_only,
            what="checkpoint",
            advice="Train first: python -m dig_jax.main --mode=train --config=FILE "
            + shlex.quote(f"--workdir={epath.Path(directory).parent}"),
        )
        self._passed_over: set[int] = set()  # damaged steps newer than the restored one

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error) -> None:
        self._steps.__exit__(*error)

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
        self._delete_passed_over()
        self._steps.save(int(state.step), to_items(state), meta)

    def replace(self, state: TrainState, meta: dict) -> None:
        """Saves a state, and leaves no other step, also where those are newer."""
        step = int(state.step)
        newer = {other for other in self.steps() if other > step}
        self.save(state, meta)
        if newer:
            self.wait()
            self._steps.delete(newer)

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
            CheckpointSaveError: It failed.
        """
        self._steps.wait()

    def close(self) -> None:
        """Waits for the save under way and ends the background threads."""
        self._steps.close()

    def steps(self) -> list[int]:
        """The finished steps, oldest first, as they are on disk now."""
        return self._steps.steps()

    def latest_step(self) -> int | None:
        """The newest finished step; None if there is none."""
        return max(self.steps(), default=None)

    def check_free_space(self, state: TrainState) -> int:
        """The bytes that saving a state takes.

        Raises:
            InputError: The disk has not so many to spare.
        """
        return self._steps.check_free_space(to_items(state))

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
            record = self._steps.read_record(step)
            items = {
                name: self._steps.read_item(step, record, name, abstract)
                for name, abstract in to_items(abstract_state).items()
            }
            return from_items(items, abstract_state), record

        state, record = self._steps.newest_sound(read)
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
            record = self._steps.read_record(step)
            leaves = self._steps.read_item(step, record, "ema", abstract)
            return unflatten(leaves, abstract_params), step, record

        if step is None:
            return self._steps.newest_sound(read)
        return self._steps.read_one(read, step)

    def read_meta(self, step: int | None = None) -> dict:
        """Reads `meta` without the arrays; of the newest step that has it, if None."""
        if step is None:
            return self._steps.newest_sound(self._steps.read_record)
        return self._steps.read_one(self._steps.read_record, step)

    def is_sound(self, step: int, abstract_state: TrainState) -> bool:
        """Whether a step is there, and all that was saved can be read as it was."""

        def read(step: int) -> None:
            record = self._steps.read_record(step)
            for name, abstract in to_items(abstract_state).items():
                self._steps.read_item(step, record, name, abstract)

        if step not in self.steps():
            return False
        try:
            self._steps.read_one(read, step)
        except CheckpointCorruptError as error:
            logging.warning("%s", error)
            return False
        return True

    def delete_from(self, step: int) -> None:
        """Removes a step and those after it: a run goes on from the one before."""
        self._steps.delete(other for other in self.steps() if other >= step)

    def _delete_passed_over(self) -> None:
        """Removes the damaged steps that the run fell back from: it makes them anew."""
        for step in sorted(self._passed_over):
            logging.warning("Deleting the damaged checkpoint of step %d.", step)
        if self._passed_over:
            self._steps.delete(self._passed_over)
        self._passed_over = set()
