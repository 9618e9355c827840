"""Runs on digits, in processes of their own that tests stop, kill and start again."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from program_cache import process_settings

from dig_jax.config import load_config_file
from dig_jax.reporting.metric_writer import read_metrics

DIGITS = Path(__file__).parents[1] / "configs" / "digits.py"
# What runs on digits begin with here; each test says what else it needs.
TINY = {
    "backbone.width": 16,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "backbone.patch_sizes": (4, 8),
    "training.batch_size": 8,
    "training.samples_per_class": 1,
    "training.diversity_every": 0,
    "training.evaluate_every": 0,
    "training.keep_best": "",
    "training.sample_every": 0,
    "sample.num_steps": 2,
}


def digits_config(data_dir, *changes):
    """The digits' configuration with dicts of changes, as a run makes it of flags."""
    config = load_config_file(str(DIGITS))
    config.data.data_dir = str(data_dir)
    for change in changes:
        config.update_from_flattened_dict(change)
    return config


def digits_flags(data_dir, *changes):
    """The same for a command line."""
    data = f"--config.data.data_dir={data_dir}"
    return [f"--config={DIGITS}", data, *config_flags(*changes)]


def config_flags(*changes):
    """Dicts of changes for a command line; the last value of a key counts."""
    merged = {name: value for change in changes for name, value in change.items()}
    return [f"--config.{name}={value}" for name, value in merged.items()]


class Started:
    """A run of one process or several, killed if a test leaves it.

    Attributes:
        workdir: Where it writes.
        processes: Those that were started.
        born, began: When, by the monotonic clock and by the calendar's.
    """

    def __init__(
        self,
        workdir,
        *arguments,
        processes=1,
        of=None,
        devices=1,
        cluster=None,
        environment=None,
        quickly=False,
        each=(),
    ):
        """Start `processes` of the `of` that a run is told to have.

        `cluster(process, number, port)` is what a cluster tells a process, in variables
        of its environment; by default flags tell it. `each` has further flags for each
        process. `quickly` is how they compile.
        """
        port, number = free_port(), of or processes
        self.workdir, self.processes = workdir, []
        self.born, self.began = time.monotonic(), time.time()
        settings = os.environ | process_settings(devices, quickly)
        for i in range(processes):
            command = [sys.executable, "-m", "dig_jax.main", f"--workdir={workdir}"]
            told = cluster(i, number, port) if cluster else {}
            if cluster:
                command += ["--distributed=auto"]
            elif number > 1:
                command += [f"--coordinator_address=127.0.0.1:{port}"]
                command += [f"--num_processes={number}", f"--process_id={i}"]
            self.processes.append(
                subprocess.Popen(
                    [*command, *arguments, *(each[i] if each else ())],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=settings | told | (environment or {}),
                )
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.communicate()

    @property
    def alive(self):
        return all(process.poll() is None for process in self.processes)

    def wait_until(self, condition, seconds=1800.0, every=0.001):
        """Wait for something; False where the run ended before it came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            if not self.alive:
                return False
            time.sleep(every)
        raise AssertionError(f"waited {seconds} s in vain")

    def wait_for_step(self, step):
        """Wait until it has logged a step."""
        found = self.wait_until(lambda: last_step(self.workdir) >= step, every=0.01)
        assert found, self.ends()

    def kill(self, which=0):
        self.processes[which].kill()
        self.processes[which].wait()

    def ends(self, *codes):
        """Wait for the ends; returns (stdout, stderr) of each."""
        said = [process.communicate(timeout=1800) for process in self.processes]
        found = tuple(process.returncode for process in self.processes)
        assert codes in ((), found), (found, said)
        return said


def last_step(workdir):
    """The newest step that a run has logged."""
    return max((row["step"] for row in read_metrics(workdir)), default=0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
