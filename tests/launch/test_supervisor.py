"""The supervisor starts a run again after what may pass, and hands signals on."""

import os
import signal
import subprocess

import pytest
from running_scripts import ENDED, LAUNCH, RESTARTED, run_script, wait_for

from dig_jax import errors


def supervise(tmp_path, codes, **settings):
    """Supervise a command that ends with one code after the other; how often it ran."""
    script = 'echo >> runs; set -- {}; n=$(wc -l < runs); exit "${{!n}}"'
    command = ["bash", "-c", script.format(" ".join(map(str, codes)))]
    settings = {"RESTART_DELAY": "0", **settings}
    done = run_script("supervise.sh", *command, folder=tmp_path, **settings)
    return done.returncode, len((tmp_path / "runs").read_text().splitlines())


@pytest.mark.parametrize("code", RESTARTED)
def test_a_run_is_started_again_after_what_may_pass(tmp_path, code):
    assert supervise(tmp_path, [code, code, 0]) == (0, 3)


@pytest.mark.parametrize("code", [0, 1, *ENDED, errors.EXIT_INTERRUPTED, 137])
def test_a_run_is_not_started_again_after_anything_else(tmp_path, code):
    assert supervise(tmp_path, [75, code, 0]) == (code, 2)


def test_restarts_end(tmp_path):
    assert supervise(tmp_path, [76] * 9, MAX_RESTARTS="2") == (76, 3)


@pytest.mark.parametrize(
    ("sent", "code", "expected"),
    [
        (signal.SIGTERM, 0, 143),  # saved: stopped, not done
        (signal.SIGINT, 0, 130),
        (signal.SIGTERM, 75, 75),  # not started again
        (signal.SIGTERM, 78, 78),
    ],
)
def test_a_signal_reaches_the_run_which_may_take_its_time(
    tmp_path, sent, code, expected
):
    script = (
        f"trap 'sleep 0.3; echo saved > saved; exit {code}' {sent.name[3:]}\n"
        "echo ready > ready\nfor i in {1..600}; do sleep 0.1; done"
    )
    process = subprocess.Popen(
        ["bash", LAUNCH / "supervise.sh", "bash", "-c", script],
        cwd=tmp_path,
        # A shell's background jobs ignore it, and so would these if tests are one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(tmp_path / "ready")
        process.send_signal(sent)
        assert process.wait(timeout=60) == expected
    finally:
        process.kill()
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_a_signal_ends_the_wait_before_a_restart(tmp_path):
    process = subprocess.Popen(
        ["bash", LAUNCH / "supervise.sh", "bash", "-c", "echo >> runs; exit 75"],
        cwd=tmp_path,
        env={**os.environ, "RESTART_DELAY": "600"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "exit code 75, restart 1" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert (tmp_path / "runs").read_text() == "\n"
