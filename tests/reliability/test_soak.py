"""10,000 steps: memory, files and threads stay what they were."""

import contextlib
import os
import time

import numpy as np
import pytest
from processes import last_step
from tiny_runs import (
    MANY,
    Started,
    unfinished_saves,
)

from dig_jax.errors import EXIT_DONE
from dig_jax.reporting.goodput import read_goodput

pytestmark = pytest.mark.reliability


def test_a_soak_of_10000_steps_is_flat(tmp_path, data_dir, figure):
    """Memory, descriptors, threads and disk while 200 checkpoints are saved."""
    workdir, samples, shm = tmp_path / "run", [], set(os.listdir("/dev/shm"))
    with Started(workdir, data_dir, *MANY) as run:
        pid = run.processes[0].pid
        while run.alive:
            step = last_step(workdir)
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                samples.append((step, *resources(pid), disk_of(workdir)))
            time.sleep(0.2)
        run.ends(EXIT_DONE)
    # Before, caches and pools grow to their size.
    table = np.array([s for s in samples if 2000 <= s[0] < 10_000], float)
    assert len(table) > 20
    step, rss, descriptors, threads, disk = table.T
    mb_per_1000_steps = np.polyfit(step, rss, 1)[0] * 1000 / 1e6
    assert mb_per_1000_steps < 1
    for values in (descriptors, threads):  # a save under way has some of its own
        assert np.polyfit(step, values, 1)[0] * 8000 < 2
    assert disk[-20:].mean() < 1.05 * disk[:20].mean() + 2e5  # and the lines of metrics
    assert unfinished_saves(workdir) == []
    assert len(os.listdir(workdir / "checkpoints")) == 3
    assert set(os.listdir("/dev/shm")) <= shm
    assert not list(workdir.rglob("*tmp*"))
    (line,) = read_goodput(workdir)
    save, productive = line["seconds"]["checkpoint"], line["seconds"]["productive"]
    figure(
        "R27",
        f"200 asynchronous saves of a tiny state: {1000 * save / 200:.0f} ms of "
        f"waiting each, {100 * save / (save + productive):.0f}% of the loop with a "
        "save every 50 steps",
    )
    figure(
        "R29",
        f"10,000 steps: own memory {rss.mean() / 1e6:.0f} MB, slope "
        f"{mb_per_1000_steps:+.2f} MB per 1,000 steps; descriptors "
        f"{descriptors.min():.0f} to {descriptors.max():.0f}; threads "
        f"{threads.min():.0f} to {threads.max():.0f}; "
        f"disk {disk.max() / 1e6:.1f} MB at most; nothing left over",
    )


def resources(pid):
    """Bytes of memory but for pages of files, open descriptors, threads."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("RssAnon:"))
    descriptors, threads = (len(os.listdir(f"/proc/{pid}/{k}")) for k in ("fd", "task"))
    return 1024 * int(line.split()[1]), descriptors, threads


def disk_of(workdir):
    total = 0
    for path in workdir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
