"""What is due between steps, and what keeps account of it."""

import contextlib
import io

import pytest

from dig_jax.options import TrainingOptions
from dig_jax.reporting.goodput import Goodput
from dig_jax.reporting.progress import Progress
from dig_jax.training.activities import Activities
from dig_jax.training.jobs import Jobs
from dig_jax.training.schedule import Job, schedule


def steps_of(name, **options):
    """The steps of a run of 10 after which something is due."""
    when = schedule(TrainingOptions(batch_size=8, num_steps=10, **options))[name]
    return [step for step in range(1, 11) if when.has(step)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("log", {"log_every": 4}, [4, 8, 10]),
        ("save", {"checkpoint_every": 5}, [5, 10]),
        ("diversity", {"diversity_every": 4}, [1, 4, 8]),
        ("diversity", {"diversity_every": 0}, []),
        ("draw", {"sample_every": 3}, [3, 6, 9, 10]),
        ("draw", {"sample_every": 0}, [10]),
        ("evaluate", {"evaluate_every": 6}, [6, 10]),
        ("evaluate", {"evaluate_every": 0}, []),
        ("snapshot", {"posthoc_ema": True, "posthoc_every": 7}, [7, 10]),
        ("snapshot", {"posthoc_ema": False, "posthoc_every": 7}, []),
    ],
)
def test_when_things_are_due(name, options, expected):
    assert steps_of(name, **options) == expected


def jobs_due(step, *, stopped=False, **options):
    """Names of what is done after a step, of jobs that only have their names."""
    jobs = object.__new__(Jobs)
    jobs._when = schedule(TrainingOptions(batch_size=8, num_steps=10, **options))
    names = ("snapshot", "save", "draw", "evaluate")
    jobs._jobs = {name: Job("other", name) for name in names}  # type: ignore[arg-type]
    jobs._plot = "plot"  # type: ignore[method-assign, assignment]
    return [job.do for job in jobs.due_after(step, stopped=stopped)]


def test_a_run_that_stops_is_saved_and_nothing_else():
    options = {
        "posthoc_ema": True,
        "posthoc_every": 2,
        "checkpoint_every": 5,
        "sample_every": 2,
        "evaluate_every": 2,
    }
    assert jobs_due(1, **options) == []
    assert jobs_due(4, **options) == ["snapshot", "draw", "evaluate", "plot"]
    assert jobs_due(5, **options) == ["save"]
    assert jobs_due(10, **options) == ["snapshot", "save", "draw", "evaluate", "plot"]
    assert jobs_due(3, stopped=True, **options) == ["save"]
    assert jobs_due(4, stopped=True, **options) == ["snapshot", "save"]


class Clock:
    """Seconds, and whether steps are waited for."""

    def __init__(self):
        self.now, self.is_paused = 0.0, False

    def __call__(self):
        return self.now

    @contextlib.contextmanager
    def paused(self):
        self.is_paused = True
        yield
        self.is_paused = False


def test_an_activity_is_told_to_all_that_keep_account_of_it():
    clock, stream = Clock(), io.StringIO()
    goodput, progress = Goodput(clock), Progress(1, stream=stream, clock=clock)
    doing = Activities(goodput, progress, clock)
    with doing("compile", "the step"):
        clock.now += 1
        assert not clock.is_paused
    with doing("evaluation", "evaluating"):
        clock.now += 2
        assert clock.is_paused
    with doing("checkpoint"):
        clock.now += 4
        assert not clock.is_paused
    spent = {kind: seconds for kind, seconds in goodput.seconds().items() if seconds}
    assert spent == {"compile": 1, "evaluation": 2, "checkpoint": 4}
    assert stream.getvalue().splitlines() == [
        "compiling the step ...",
        "compiled the step in 1.0 s",
        "evaluating ...",
        "evaluating took 2.0 s",
    ]
