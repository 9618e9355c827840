"""Where the time went: every second once, over all starts, killed ones too."""

import json

import pytest

from dig_jax.reporting import goodput as goodput_module
from dig_jax.reporting.goodput import (
    FILE_NAME,
    KINDS,
    Goodput,
    GoodputFile,
    read_goodput,
)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_every_second_is_of_one_kind(clock):
    goodput = Goodput(clock)
    clock.now += 5
    with goodput.spent("checkpoint"):
        clock.now += 1
    goodput.turn_to_step(1, done_before=1)
    clock.now += 2
    goodput.turn_to_step(2, done_before=1)
    clock.now += 4
    with goodput.spent("drawing"):
        clock.now += 8
        with goodput.spent("evaluation"):
            clock.now += 16
        clock.now += 32
    clock.now += 64
    goodput.turn_to("data_wait")
    clock.now += 128
    found = {kind: s for kind, s in goodput.seconds().items() if s}
    assert found == {
        "start": 5,
        "checkpoint": 1,
        "lost": 2,
        "productive": 68,
        "drawing": 40,
        "evaluation": 16,
        "data_wait": 128,
    }


def test_the_time_of_a_block_that_fails_is_its_own(clock):
    goodput = Goodput(clock)

    def fail():
        with goodput.spent("checkpoint"):
            clock.now += 3
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    clock.now += 1
    assert goodput.seconds()["checkpoint"] == 3
    assert goodput.seconds()["start"] == 1


def start_of(workdir, clock, first_step, last_step, *, killed=False):
    """A start whose steps take a second each, after two seconds without steps."""
    goodput = Goodput(clock)
    clock.now += 2
    record = GoodputFile(workdir, goodput, first_step)
    for step in range(first_step + 1, last_step + 1):
        goodput.turn_to_step(step, record.done_before)
        clock.now += 1
        record.step_done(step)
    if not killed:
        record.__exit__(None)
    return record


def test_steps_done_again_after_a_kill_are_lost(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(goodput_module, "SECONDS_BETWEEN_WRITES", 0.0)
    start_of(tmp_path, clock, 0, 7, killed=True)
    start_of(tmp_path, clock, 5, 6, killed=True)
    last = start_of(tmp_path, clock, 5, 10)
    lines = read_goodput(tmp_path)
    assert [line["seconds"]["lost"] for line in lines] == [0, 1, 2]
    assert [line["seconds"]["productive"] for line in lines] == [7, 0, 3]
    assert [line["end"] for line in lines] == [None, None, "in order"]
    for line in lines:
        assert line["wall_seconds"] == sum(line["seconds"].values())
    this, all_starts = last.summary().splitlines()
    assert this == "goodput: 42.9% of 7.0 s were productive; lost 2.0 s, start 2.0 s"
    assert all_starts == (
        "goodput of all 3 starts: 52.6% of 19.0 s were productive; lost 3.0 s, start "
        "6.0 s"
    )


def test_an_error_ends_a_start_by_its_name(tmp_path, clock):
    def fail():
        with GoodputFile(tmp_path, Goodput(clock), 3) as record:
            record.step_done(4)
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        fail()
    (line,) = read_goodput(tmp_path)
    assert (line["first_step"], line["last_step"]) == (3, 4)
    assert line["end"] == "FloatingPointError"


def test_lines_that_are_no_record_are_passed_over(tmp_path, clock):
    start_of(tmp_path, clock, 0, 1)
    path = tmp_path / FILE_NAME
    good, before = path.read_text(), read_goodput(tmp_path)
    path.write_bytes(
        good.encode() + b'[]\n{"last_step": 1}\n\xff\xfe\n' + good[:40].encode()
    )
    assert read_goodput(tmp_path) == before
    assert set(json.loads(good)["seconds"]) == set(KINDS)


def test_only_the_first_process_writes(tmp_path, clock):
    with GoodputFile(None, Goodput(clock), 0) as record:
        record.step_done(1)
    assert list(tmp_path.iterdir()) == []
