"""What every test runs under: shapes and types are checked, on one CPU device.

DIG_JAX_TEST_DEVICE=cuda lets a GPU through, beside the CPU: for the tests marked gpu,
which check no types (production does not either) and need no more than dig_jax does.
"""

import gc
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import program_cache
import pytest
import slowest_files
from absl import logging as absl_logging

DEVICE = os.environ.get("DIG_JAX_TEST_DEVICE", "")
# Without cpu alone, libtpu would look for its hardware, aloud.
os.environ["JAX_PLATFORMS"] = "cuda,cpu" if DEVICE == "cuda" else "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
if DEVICE:  # several processes share a GPU's memory
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
program_cache.keep_programs()

if not DEVICE:
    # Before the first import of dig_jax: annotations are checked at every call.
    jaxtyping.install_import_hook("dig_jax", "type_checks.checked")

absl_logging.set_verbosity(absl_logging.WARNING)
# Traces are millions of small objects that live on: to look through them as often as
# Python does by default takes a twentieth of the suite's time.
gc.set_threshold(50_000, 50, 50)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist, not the one that it reports to."""
    return hasattr(config, "workerinput")


def pytest_configure():
    slowest_files.check_names()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]):
    if is_worker(config):
        items[:] = slowest_files.slowest_first(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter):
    slowest_files.tell_slowest(terminalreporter)


def pytest_sessionfinish(session: pytest.Session):
    if not is_worker(session.config):
        program_cache.tidy()


@pytest.fixture(scope="session", autouse=True)
def quick_classifier():
    """The classifier that features come from, smaller and trained in two seconds."""
    from dig_jax.evaluation import features
    from dig_jax.metrics.networks.small_classifier import ClassifierOptions

    def create() -> ClassifierOptions:
        return ClassifierOptions(
            widths=(8,), num_features=8, num_steps=40, num_epochs=0
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "ClassifierOptions", create)
        yield


@pytest.fixture(scope="session")
def bucket():
    """gs://bucket, for every client in this process and in those that it starts."""
    import bucket as buckets

    with buckets.serve_bucket() as served, pytest.MonkeyPatch.context() as patch:
        for name, value in buckets.settings_of(served).items():
            patch.setenv(name, value)
        yield served


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium for `browser.visit`; skipped, with a reason, without one.

    Of a module alone: while Playwright runs, nothing else may run an event loop.
    """
    from browser import started_browser

    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where data sets are kept, and what is made of them, for a module's tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory):
    """TrainedRuns that all workers share."""
    from trained_runs import TrainedRuns

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    return TrainedRuns(folder / "trained_runs")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test, whatever runs before it."""
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def without_optimizations():
    """Compile quickly what runs a few times; modules that want it say so."""
    with program_cache.compiled_quickly():
        yield


@pytest.fixture(scope="session")
def on_devices(tmp_path_factory) -> Callable[..., dict[str, np.ndarray]]:
    """`(number, function, *texts)`: what a test module's function returns elsewhere.

    It is called with the texts in a process of its own, which has that many CPU
    devices, and returns arrays by name.
    """
    import jax

    def call(number: int, function: Callable, *texts: str) -> dict[str, np.ndarray]:
        module = Path(inspect.getfile(function))
        path = tmp_path_factory.mktemp("on_devices") / "arrays.npz"
        script = (
            "import sys, numpy; sys.path[:0] = sys.argv[1:3]\n"
            f"import {module.stem} as module\n"
            f"arrays = module.{function.__name__}(*sys.argv[4:])\n"
            "numpy.savez(sys.argv[3], **arrays)"
        )
        quickly = jax.config.read("jax_disable_most_optimizations")
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            **program_cache.process_settings(number, quickly),
        }
        folders = module.parent, Path(__file__).parent
        subprocess.run(
            [sys.executable, "-c", script, *folders, path, *texts],
            check=True,
            env=environment,
        )
        with np.load(path) as arrays:
            return dict(arrays)

    return call
