"""Two trainers in one workdir: the second is refused, and says where the first is."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from dig_jax.errors import InputError
from dig_jax.storage.workdir_lock import LOCK_FILE, only_trainer


def take(workdir):
    with only_trainer(workdir, patience_seconds=0.0):
        pass


@pytest.fixture
def other_trainer(tmp_path):
    """Another process that holds the lock until it is killed."""
    code = f"""
        import pathlib, time
        from dig_jax.storage.workdir_lock import only_trainer

        with only_trainer(pathlib.Path({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(100)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_trainer_is_told_where_the_first_is(tmp_path, other_trainer):
    said = rf"process {other_trainer.pid} on {socket.gethostname()}.*another --workdir"
    with pytest.raises(InputError, match=said):
        take(tmp_path)


def test_a_killed_trainer_leaves_no_lock(tmp_path, other_trainer):
    other_trainer.send_signal(signal.SIGKILL)
    with only_trainer(tmp_path):  # without waiting for its end: that takes a moment
        pass


def test_the_lock_is_free_after_an_error_and_names_who_holds_it_now(tmp_path):
    (tmp_path / LOCK_FILE).write_text("process 1 on a host of long ago " * 20)
    with pytest.raises(KeyError), only_trainer(tmp_path):
        raise KeyError
    with only_trainer(tmp_path), pytest.raises(InputError) as refused:
        take(tmp_path)
    assert f"process {os.getpid()} on" in str(refused.value)
    assert "long ago" not in str(refused.value)


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with only_trainer(tmp_path):
        take(tmp_path)
