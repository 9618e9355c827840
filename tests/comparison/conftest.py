"""Small comparisons, compiled quickly and not timed."""

import pytest
from small_comparison import SPEED

from dig_jax.comparison import report
from dig_jax.comparison import run as comparison_run


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="module", autouse=True)
def no_stopwatch():
    """Speeds are not what is tested: they take seconds and differ each time."""

    def measure(plan, workdir, say):
        return {variant.name: SPEED for variant in plan.variants}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_run, "measure_speeds", measure)
        yield


@pytest.fixture
def no_plots(monkeypatch):
    """They take seconds; `compared` has them."""
    monkeypatch.setattr(report, "plot_comparison", lambda *_: None)
