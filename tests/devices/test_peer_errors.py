"""Whose error it is, in runs of two processes: a lost peer's, or one's own."""

import signal
import subprocess
import sys

import pytest
from processes import DIGITS, free_port

from dig_jax.devices.processes import says_lost
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_PEER_FAILURE, EXIT_UNFORESEEN

RUN = '''
import os, signal, sys, time
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from dig_jax import main
from dig_jax.devices import processes
from dig_jax.errors import InputError

def end_late(code):
    """Leave jax's own threads the time to end this process first, if they would."""
    time.sleep(3)
    os._exit(code)

def fail(how):
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(5)
    if how == "memory":
        jax.block_until_ready(jnp.zeros((10**6, 10**6, 100)))
    if how == "shapes":
        jnp.ones(3) @ jnp.ones(4)
    if how == "callback":
        def refuse(x):
            raise ValueError("refused")
        jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(refuse, x, x))(0.0))

def train(config, options):
    """Sums over both processes until one of them fails."""
    first = jax.process_index() == int(sys.argv[2])
    if sys.argv[1] in ("alike", "left"):
        processes.exit_now = end_late
    if sys.argv[1] == "alike":
        time.sleep(0 if first else 2)
        raise InputError("refused by both")
    if sys.argv[1] == "left":
        if first:
            time.sleep(2)
            os._exit(5)
        raise InputError("refused by one")
    mesh = Mesh(np.array(jax.devices()), ("device",))
    spread = NamedSharding(mesh, PartitionSpec("device"))
    x = jax.make_array_from_process_local_data(spread, np.ones(100, np.float32))
    add_up = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))
    for i in range(10**6):
        add_up(x).block_until_ready()
        if i == 20 and first:
            fail(sys.argv[1])

main.MODES["train"] = train
sys.exit(main.main(sys.argv[3:]))
'''


def run_two(how, victim):
    """Exit codes of both, and what they said on stderr: the victim first."""
    flags = [
        f"--config={DIGITS}",
        f"--coordinator_address=127.0.0.1:{free_port()}",
        "--num_processes=2",
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, how, str(victim), *flags, f"--process_id={i}"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=600)[1] for process in started]
    codes = [process.returncode for process in started]
    order = slice(None, None, -1 if victim else 1)
    return codes[order], said[order]


@pytest.mark.parametrize(
    ("how", "code", "victim"),
    [("killed", -signal.SIGKILL, 0), ("killed", -signal.SIGKILL, 1), ("exit", 5, 1)],
)
def test_a_lost_process_is_told_as_lost(how, code, victim):
    codes, said = run_two(how, victim)
    assert codes == [code, EXIT_PEER_FAILURE], "\n".join(said)[-1500:]
    assert "peer failure: " in said[1]


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("memory", EXIT_BAD_INPUT, "error: A device has too little memory: RESOURCE_"),
        ("callback", EXIT_UNFORESEEN, "ValueError: refused"),
        ("shapes", EXIT_UNFORESEEN, "dot_general requires contracting dimensions"),
    ],
)
def test_an_error_of_ones_own_is_told_as_such(how, code, message):
    """By the other process too, which ends with the same code."""
    codes, said = run_two(how, 1)
    assert codes == [code, code]
    assert message in said[0]
    assert ("Traceback" in said[0]) == (code == EXIT_UNFORESEEN)
    assert "peer failure" not in said[0]
    assert f"process 1 failed by itself, with {code}" in said[1]


@pytest.mark.parametrize("first", [0, 1])
def test_what_all_refuse_ends_all_alike_whoever_is_first(first):
    """Where process 0 comes last, it must not leave the one that waits for it."""
    codes, said = run_two("alike", first)
    assert codes == [EXIT_BAD_INPUT, EXIT_BAD_INPUT], said
    assert said == ["error: refused by both\n"] * 2


def test_who_has_said_its_error_keeps_its_code_when_process_0_dies():
    codes, said = run_two("left", 0)
    assert codes == [5, EXIT_BAD_INPUT], said
    assert said[1].startswith("error: refused by one\n")
    assert "peer failure" not in said[1]


def test_an_error_of_process_0_is_its_own():
    """It keeps what the others could hear, and is gone when they ask."""
    codes, said = run_two("memory", 0)
    assert codes[0] == EXIT_BAD_INPUT
    assert "RESOURCE_EXHAUSTED: Out of memory" in said[0]
    assert "peer failure" not in said[0]
    assert codes[1] in (EXIT_BAD_INPUT, EXIT_PEER_FAILURE)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        # As jax 0.10 says it on CPUs, in runs of two processes.
        (
            "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/"
            "pair.cc:547] Connection closed by peer [127.0.0.1]:8078",
            True,
        ),
        (
            "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/"
            "pair.cc:538] Read error [127.0.0.1]:22412: Connection reset by peer",
            True,
        ),
        ("DEADLINE_EXCEEDED: Barrier timed out. Id: x::0.", True),
        ("DEADLINE_EXCEEDED: GetKeyValue() timed out with key: nokey", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 400000000000000 bytes.", False),
        ("INTERNAL: CpuCallback error calling callback: ValueError: refused", False),
        # As NCCL and the sources of XLA have it.
        (
            "INTERNAL: NCCL operation ncclAllReduce failed: remote process exited or "
            "there was a network error",
            True,
        ),
        (
            "UNKNOWN: [enforce fail at external/gloo/gloo/transport/tcp/pair.cc:446] "
            "op.preamble.length <= op.nbytes. 400 vs 200",
            False,
        ),
        ("INTERNAL: Failed to launch CUDA kernel: out of resources", False),
        ("the data set's server: connection reset by peer", False),
        ("FAILED_PRECONDITION: Buffer Definition Event: donated", False),
    ],
)
def test_messages_of_lost_processes_are_told_from_others(text, lost):
    assert says_lost(text) is lost
