"""Launch scripts, run dry or with programs that only say how they were called."""

import os
import subprocess
import time
from pathlib import Path

from dig_jax import errors

LAUNCH = Path(__file__).parents[2] / "launch"
RESTARTED = (errors.EXIT_WATCHDOG, errors.EXIT_PEER_FAILURE)
ENDED = (errors.EXIT_NON_FINITE, errors.EXIT_BAD_INPUT)


def run_script(name, *arguments, folder=None, **settings):
    return subprocess.run(
        ["bash", str(LAUNCH / name), *arguments],
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")
