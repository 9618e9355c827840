"""What is due after which step of a run."""

from collections.abc import Callable
from typing import NamedTuple

from dig_jax.options import TrainingOptions
from dig_jax.storage.state import TrainState


class Every(NamedTuple):
    """Steps after which something is due.

    Attributes:
        steps: Every so many; 0 for none.
        also: Single ones beside them.
    """

    steps: int = 0
    also: tuple[int, ...] = ()

    def has(self, step: int) -> bool:
        """Whether it is due after this step."""
        return step in self.also or bool(self.steps and step % self.steps == 0)


class Job(NamedTuple):
    """Something that is done between two steps.

    Attributes:
        kind: Of the time that it takes (`goodput.KINDS`).
        do: `(state, step)`, the step that was taken last.
    """

    kind: str
    do: Callable[[TrainState, int], None]


def schedule(options: TrainingOptions) -> dict[str, Every]:
    """When everything is due; what is due together is done in this order."""
    last, never = (options.num_steps,), Every()
    snapshot, evaluate = Every(options.posthoc_every, last), options.evaluate_every
    diversity, held_out = options.diversity_every, options.held_out_every
    return {
        "log": Every(options.log_every, last),
        "diversity": Every(diversity, (1,)) if diversity else never,
        "held_out": Every(held_out, last) if held_out else never,
        "snapshot": snapshot if options.posthoc_ema else never,
        "save": Every(options.checkpoint_every, last),
        "draw": Every(options.sample_every, last),
        "evaluate": Every(evaluate, last) if evaluate else never,
    }
