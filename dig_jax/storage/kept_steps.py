"""Which of the steps that a run saved stay on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orbax.checkpoint import checkpoint_managers


@dataclass(frozen=True)
class NewestDue(checkpoint_managers.PreservationPolicy):
    """The newest step, and the newest of those that were due.

    What a signal left between two of those is gone when there is a newer one, and
    pushes none of them out.

    Attributes:
        keep: Number of steps that were due.
        is_due: Whether a step was.
    """

    keep: int
    is_due: Callable[[int], bool]

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: Any,
    ) -> list[bool]:
        """Whether each of the checkpoints, oldest first, is preserved.

        Args:
            checkpoints: Orbax's `PolicyCheckpointInfo`s, which have a `step`.
            context: Not used.
        """
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = [step for step in steps if self.is_due(step)][-self.keep :] + steps[-1:]
        return [step in kept for step in steps]
