"""Errors of JAX about its devices, as one line that says what is needed."""

import jax
import pytest

from dig_jax import main
from dig_jax.devices.device_errors import device_error
from dig_jax.errors import EXIT_BAD_INPUT

# As jax 0.10 and its CUDA plugin say them.
TOO_OLD = (
    RuntimeError(
        "Outdated cuDNN installation found.\nVersion JAX was built against: 91900\n"
        "Minimum supported: 919\nInstalled version: 90100\nThe local installation "
        "version must be no lower than 919."
    ),
    jax.errors.JaxRuntimeError(
        "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors "
        "above for more details."
    ),
    jax.errors.JaxRuntimeError(
        "INTERNAL: cudaErrorInsufficientDriver : CUDA driver version is insufficient "
        "for CUDA runtime version"
    ),
    RuntimeError(
        "Unable to initialize backend 'cuda': Backend 'cuda' is not in the list of "
        "known backends: ['cpu']."
    ),
)


@pytest.mark.parametrize("error", TOO_OLD, ids=lambda e: str(e)[:20])
def test_an_old_driver_or_cudnn_ends_in_one_line(error, capsys, monkeypatch):
    def fail(config, options):
        raise error

    monkeypatch.setitem(main.MODES, "summary", fail)
    code = main.main(["--mode=summary", "--config=configs/digits.py"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == EXIT_BAD_INPUT
    assert line.startswith("error: JAX ")
    assert "driver of 525" in line
    assert "cuDNN" in line
    assert "JAX_PLATFORMS=cpu" in line


def test_the_cause_of_an_error_counts_too():
    error = ValueError("something about it")
    error.__cause__ = TOO_OLD[1]
    assert "DNN library" in (device_error(error) or "")


def test_other_errors_are_left_alone():
    assert device_error(RuntimeError("something else")) is None
    assert device_error(ValueError("Unable to initialize backend 'cuda'")) is None
    other = jax.errors.JaxRuntimeError("UNAVAILABLE: the peer is gone")
    assert device_error(other) is None
