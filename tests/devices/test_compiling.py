"""A compilation that Ctrl-C interrupts."""

import os
import signal
import threading

import jax
import jax.numpy as jnp
import pytest

from dig_jax.devices.compiling import compile_lowered, is_left_behind
from dig_jax.training.stop import Interrupted, StopSignal


class Slow:
    """A program whose compilation begins, is interrupted, and goes on until it may."""

    def __init__(self, signals=()):
        self.may_end = threading.Event()
        self._signals = signals

    def compile(self):
        for number in self._signals:
            os.kill(os.getpid(), number)
        self.may_end.wait()
        return "compiled"


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_program_compiled_in_a_thread_is_that_program():
    compiled = compile_lowered(jax.jit(lambda x: 2 * x).lower(jnp.arange(3)))
    assert compiled(jnp.arange(3)).tolist() == [0, 2, 4]
    assert not is_left_behind()


def test_the_error_of_a_compilation_is_raised():
    class Wrong:
        def compile(self):
            raise FloatingPointError("no")

    with pytest.raises(FloatingPointError, match="no"):
        compile_lowered(Wrong())


@pytest.mark.parametrize("entered", [False, True])
def test_ctrl_c_does_not_wait_for_the_compiler(entered):
    slow = Slow([signal.SIGINT])
    stop = StopSignal()
    if not entered:
        with pytest.raises(KeyboardInterrupt):
            compile_lowered(slow)
    else:
        with stop, pytest.raises(Interrupted), stop.at_once():
            compile_lowered(slow)
        assert stop.received is signal.SIGINT
    assert is_left_behind()
    slow.may_end.set()
    while is_left_behind():
        pass


def test_ctrl_c_that_came_before_is_not_forgotten():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("it was asked to stop")


def test_other_signals_wait_as_they_do_between_steps():
    slow = Slow([signal.SIGTERM])
    slow.may_end.set()
    with StopSignal() as stop, stop.at_once():
        assert compile_lowered(slow) == "compiled"
    assert stop.received is signal.SIGTERM
