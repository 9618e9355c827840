"""Short runs on digits that many tests look at, trained once for all of them."""

import fcntl
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import TINY, digits_flags
from program_cache import compiled_quickly

from dig_jax.errors import EXIT_DONE
from dig_jax.main import main

# A run of four steps, from which everything can be drawn: guided, post-hoc averages.
SHORT = {
    **TINY,
    "training.num_steps": 4,
    "training.posthoc_ema": True,
    "training.posthoc_every": 1,
    "objective.label_dropout": 0.1,
    "sample.num_images": 10,
    "mesh.data": 1,
}


class TrainedRuns:
    """Runs in one folder, for every process of pytest-xdist.

    Attributes:
        data_dir: Where their data set is, and what is made of it.
    """

    def __init__(self, folder: Path):
        self.data_dir = folder / "data"
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def workdir(self, *changes: Mapping[str, Any]) -> Path:
        """The run of SHORT with dicts of changes. Not to be changed: copy it."""
        flags = digits_flags(self.data_dir, SHORT, *changes)
        name = hashlib.sha256(repr(flags).encode()).hexdigest()[:16]
        workdir, done = self._folder / name, self._folder / f"{name}.done"
        with locked(self._folder / "lock"):
            if not done.exists():
                with compiled_quickly():
                    assert main([*flags, f"--workdir={workdir}"]) == EXIT_DONE
                done.touch()
        return workdir


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; a process that is killed holds the lock no longer."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
