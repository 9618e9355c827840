"""Several processes at one comparison: nothing is done twice, and nothing is left."""

from contextlib import ExitStack

import pytest

from dig_jax.comparison import together
from dig_jax.comparison.together import TAKEN, Left, Task, in_turn, work_off
from dig_jax.storage.workdir_lock import try_run


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(together, "PATIENCE_SECONDS", 0.1)


class Another:
    """A process that has taken folders; flock knows them apart by their open files."""

    def __init__(self):
        self._held = ExitStack()

    def takes(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        assert self._held.enter_context(try_run(folder, TAKEN)) is None

    def ends(self):
        self._held.close()


@pytest.fixture
def another():
    process = Another()
    yield process
    process.ends()


def tasks_of(folder, names, does):
    def work(name):
        return lambda: does(name)

    return [Task(name, folder / name, work(name)) for name in names]


def test_tasks_that_another_has_are_left_and_named(tmp_path, another):
    done = []
    another.takes(tmp_path / "second")
    left = work_off(
        tasks_of(tmp_path, ("first", "second", "third"), done.append), wait=False
    )
    assert done == ["first", "third"]
    (named,) = left.taken
    assert left.code is None
    assert named.startswith("second (process ")


def test_a_task_whose_process_ended_meanwhile_is_taken_over(tmp_path, another):
    """Killed, for one: its lock went away with it."""
    done = []

    def does(name):
        done.append(name)
        another.ends()

    another.takes(tmp_path / "first")
    assert work_off(tasks_of(tmp_path, ("first", "second"), does), wait=False) == Left()
    assert done == ["second", "first"]


def test_what_comes_next_can_wait_for_the_others(
    tmp_path, another, monkeypatch, capsys
):
    done, slept = [], []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            another.ends()

    monkeypatch.setattr(together, "sleep", sleep)
    another.takes(tmp_path / "first")
    tasks = tasks_of(tmp_path, ("first", "second"), done.append)
    assert work_off(tasks, wait=True) == Left()
    assert done == ["second", "first"]  # which finds that nothing is left of it
    assert len(slept) == 2
    assert capsys.readouterr().out.count("waiting for first (process ") == 1


def test_a_training_that_is_stopped_ends_the_work(tmp_path):
    codes = {"first": None, "second": 75, "third": None}
    tasks = tasks_of(tmp_path, codes, codes.get)
    assert work_off(tasks, wait=False) == Left(code=75)
    with try_run(tmp_path / "second", TAKEN) as holder:
        assert holder is None  # it is free again


def test_short_work_is_done_in_turn(tmp_path, another, monkeypatch):
    another.takes(tmp_path)
    asked = []

    def ask(*args, **kwargs):
        asked.append(args)
        if len(asked) == 2:
            another.ends()
        return try_run(*args, **kwargs, patience_seconds=0.0)

    monkeypatch.setattr(together, "try_run", ask)
    with in_turn(tmp_path), try_run(tmp_path, TAKEN, patience_seconds=0.0) as holder:
        assert holder is not None
    assert len(asked) == 2
