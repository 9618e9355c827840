"""A process that stands still ends, and one that moves does not."""

import subprocess
import sys
import textwrap

from dig_jax.errors import EXIT_WATCHDOG


def run(body):
    code = f"import time\nfrom dig_jax.devices.watchdog import Watchdog\n{body}"
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_standstill_ends_with_every_stack():
    body = """
def stand_still():
    time.sleep(60)

with Watchdog(0.4) as watchdog:
    watchdog.step_done(7)
    stand_still()
"""
    ended = run(body)
    assert ended.returncode == EXIT_WATCHDOG
    assert "watchdog: no step was done in 0.4 s after step 7" in ended.stderr
    assert "in stand_still" in ended.stderr


def test_steps_pauses_and_the_end_keep_it_quiet():
    body = """
with Watchdog(2.0) as watchdog:
    for step in range(12):
        time.sleep(0.25)
        watchdog.step_done(step)
    with watchdog.paused():
        time.sleep(3)
time.sleep(3)
with Watchdog(0):
    time.sleep(0.5)
"""
    ended = run(body)
    assert (ended.returncode, ended.stderr) == (0, "")
