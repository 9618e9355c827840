"""Where a run keeps its parameters: checkpoints, the best one, post-hoc snapshots."""

import contextlib
from typing import Any

from absl import logging

from dig_jax.errors import CheckpointCorruptError
from dig_jax.files.paths import BEST, CHECKPOINTS, AnyPath
from dig_jax.options import TrainingOptions
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.posthoc_ema import open_snapshots, snapshot_items
from dig_jax.storage.state import TrainState
from dig_jax.training.schedule import schedule


class Storage:
    """Checkpoints of a run, the best one, and its snapshots for post-hoc EMA.

    A checkpoint is saved only when all snapshots before it are on disk, so a run that
    goes on from one has them all. The best checkpoint stays where a run goes back
    behind it: its steps come again and are the same.

    Attributes:
        checkpoints: To restore from.
    """

    def __init__(self, workdir: AnyPath, options: TrainingOptions) -> None:
        is_due = schedule(options)["save"].has
        with contextlib.ExitStack() as opened:
            self.checkpoints = opened.enter_context(
                Checkpoints(
                    workdir / CHECKPOINTS, keep=options.keep_checkpoints, is_due=is_due
                )
            )
            self._best = None
            if options.keep_best:
                self._best = opened.enter_context(Checkpoints(workdir / BEST, keep=1))
            self._snapshots = None
            if options.posthoc_ema:
                self._snapshots = opened.enter_context(open_snapshots(workdir))
            self._close = opened.pop_all()

    def __enter__(self) -> "Storage":
        return self

    def __exit__(self, *error) -> None:
        self._close.__exit__(*error)

    def check_free_space(self, state: TrainState) -> None:
        """Raise InputError where the disk has no room for a state."""
        self.checkpoints.check_free_space(state)
        if self._snapshots is not None:
            self._snapshots.check_free_space(snapshot_items(state))

    def forget_after(self, step: int) -> None:
        """Delete the snapshots of steps that will be done again."""
        if self._snapshots is not None:
            steps = self._snapshots.steps()
            self._snapshots.delete(later for later in steps if later > step)

    def save(self, state: TrainState, meta: dict) -> None:
        """Save a checkpoint in the background; see `Checkpoints.save`."""
        if self._snapshots is not None:
            self._snapshots.wait()
        self.checkpoints.save(state, meta)

    def wait(self) -> None:
        """Wait for what is being saved; see `Checkpoints.wait`."""
        self.checkpoints.wait()
        for other in (self._best, self._snapshots):
            if other is not None:
                other.wait()

    def read_best(self) -> dict[str, Any] | None:
        """What is said of the best checkpoint (`meta["best"]`); None without one."""
        if self._best is None or self._best.latest_step() is None:
            return None
        try:
            return self._best.read_meta().get("best")
        except CheckpointCorruptError as error:
            logging.warning("%s The best checkpoint is looked for anew.", error)
            self._best.delete_from(0)
            return None

    def save_best(self, state: TrainState, meta: dict) -> None:
        """Save a checkpoint in place of the best one, in a run that keeps it."""
        assert self._best is not None, "training.keep_best names no score"
        self._best.replace(state, meta)

    def save_snapshot(self, state: TrainState) -> None:
        """Save the averages of a state in the background, in a run that keeps them."""
        if self._snapshots is not None:
            self._snapshots.save(int(state.step), snapshot_items(state), {})
