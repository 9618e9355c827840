"""One run at a time in a workdir for each purpose, however many processes it has."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dig_jax.devices.sharding import as_first_process_says, is_first_process
from dig_jax.files.lock import PATIENCE_SECONDS, Purpose, try_lock
from dig_jax.files.paths import AnyPath, is_remote

LOCK_FILE = "trainer.lock"
TRAIN = Purpose(
    LOCK_FILE,
    "is being trained by another run",
    "Wait for it, end it, or use another --workdir.",
)
"""Two trainers would delete each other's checkpoints."""
EVALUATE = Purpose(
    "evaluation.lock",
    "is being evaluated by another process",
    "Wait for it, or end it; the same command then goes on where it stopped.",
)
"""Two would add batches to one another's images."""
SAMPLE = Purpose(
    "sampling.lock",
    "is being drawn into by another process",
    "Wait for it, end it, or draw into another folder (--out=DIR).",
)
"""Two would add batches to one another's images."""


@contextlib.contextmanager
def try_run(
    workdir: AnyPath, purpose: Purpose, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[str | None]:
    """Holds a workdir's lock and gives None; or does not, and gives who holds it.

    The lock goes away with the process, however that ends. Process 0 of a run holds it
    for all of them; every process makes this call, and those that do not know the
    holder give "". Readers need no lock. A file system without locks, or a bucket, is
    worked on without one.
    """
    with contextlib.ExitStack() as opened:
        holder = None
        if is_first_process() and not is_remote(workdir):
            lock = try_lock(Path(workdir), purpose, patience_seconds=patience_seconds)
            holder = opened.enter_context(lock)
        yield (holder or "") if as_first_process_says(holder is not None) else None


@contextlib.contextmanager
def only_run(
    workdir: AnyPath, purpose: Purpose, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """Holds a workdir's lock, as `try_run` does.

    Raises:
        InputError: Another run does the same there; says where its process is.
    """
    with try_run(workdir, purpose, patience_seconds=patience_seconds) as holder:
        if holder is not None:
            raise purpose.refusal(workdir, holder)
        yield


@contextlib.contextmanager
def only_trainer(
    workdir: AnyPath, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[None]:
    """`only_run` for training."""
    with only_run(workdir, TRAIN, patience_seconds=patience_seconds):
        yield
