"""Several processes at one comparison: each takes what no other has taken.

A lock in a task's folder says that it is taken; it goes away with its process, so that
the task of a process that was killed is another's.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from time import sleep
from typing import NamedTuple

from dig_jax.files.lock import PATIENCE_SECONDS, Purpose
from dig_jax.files.paths import AnyPath, make_folder
from dig_jax.files.shown import say
from dig_jax.storage.workdir_lock import try_run

POLL_SECONDS = 2.0
TAKEN = Purpose(
    "compare.lock",
    "is taken by another process of this comparison",
    "Wait for it, or end it.",
)


class Task(NamedTuple):
    """What one process does.

    Attributes:
        name: Of it, as people are told it.
        folder: Its own; made where it is not there.
        work: Does what is left of it, which may be nothing; gives the exit code of a
            training that was stopped, else None.
    """

    name: str
    folder: AnyPath
    work: Callable[[], int | None]


class Left(NamedTuple):
    """What `work_off` left.

    Attributes:
        code: The exit code of a training that was stopped, else None.
        taken: Names of the tasks that others are at, each with its process.
    """

    code: int | None = None
    taken: tuple[str, ...] = ()


def work_off(tasks: Sequence[Task], *, wait: bool) -> Left:
    """Do every task that no other process has taken, one after the other.

    Args:
        tasks: In the order in which they are done.
        wait: Wait for the others' tasks, too: what comes next needs all of them. A
            task that another has done is still given to `work`.
    """
    left, told, patience_seconds = list(tasks), False, 0.0
    while left:
        taken = []
        for task in left:
            make_folder(task.folder)
            lock = try_run(task.folder, TAKEN, patience_seconds=patience_seconds)
            with lock as holder:
                if holder is not None:
                    taken.append((task, holder))
                    continue
                code = task.work()
                if code is not None:
                    return Left(code)
        names = tuple(
            f"{task.name} ({holder})" if holder else task.name for task, holder in taken
        )
        if len(taken) < len(left):
            patience_seconds = 0.0
        elif not patience_seconds:
            patience_seconds = PATIENCE_SECONDS
        elif not wait:
            return Left(taken=names)
        else:
            if not told:
                say(f"waiting for {', '.join(names)}")
            told = True
            sleep(POLL_SECONDS)
        left = [task for task, _ in taken]
    return Left()


@contextlib.contextmanager
def in_turn(folder: AnyPath) -> Iterator[None]:
    """Holds a folder's lock for what takes seconds; waits for it."""
    make_folder(folder)
    while True:
        with try_run(folder, TAKEN) as holder:
            if holder is None:
                yield
                return
