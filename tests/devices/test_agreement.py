"""Processes that would compute different things are told so, all of them alike."""

import threading

import pytest

from dig_jax.devices.agreement import KEY, compare
from dig_jax.errors import InputError

ALIKE = {"training.learning_rate": 0.1, "dig_jax's code": "ab12", "sizes": [2, 4]}


class Store:
    """jax's store, in memory: a value can be waited for."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            assert key not in self.values  # jax refuses to overwrite
            self.values[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self.changed:
            found = self.changed.wait_for(
                lambda: key in self.values, timeout_in_ms / 1000
            )
            assert found, "DEADLINE_EXCEEDED"
            return self.values[key]


def compare_all(*descriptions):
    """What each process is told; None where it may go on."""
    store, told = Store(), {}

    def run(process_id, described):
        try:
            told[process_id] = compare(
                store, process_id, len(descriptions), described, timeout=60.0
            )
        except InputError as error:
            told[process_id] = str(error)

    threads = [threading.Thread(target=run, args=p) for p in enumerate(descriptions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.values) == {KEY, *(f"{KEY}/{i}" for i in range(1, len(threads)))}
    return told


def test_processes_that_agree_go_on():
    assert compare_all(*[ALIKE] * 5) == dict.fromkeys(range(5))


def test_tuples_are_what_json_makes_of_them():
    assert compare_all(ALIKE, ALIKE | {"sizes": (2, 4)}) == {0: None, 1: None}


def test_all_are_told_who_differs_in_what():
    other = ALIKE | {"training.learning_rate": 0.2}
    told = compare_all(ALIKE, other, ALIKE, other)
    assert len(set(told.values())) == 1
    said = "training.learning_rate is 0.2 in processes 1, 3, and 0.1 in process 0"
    assert said in told[0]
    assert "code" not in told[0].partition("these differ: ")[2]


def test_what_one_process_alone_has_is_named():
    fewer = {k: v for k, v in ALIKE.items() if k != "sizes"}
    assert (
        'extra is "x" in process 1, and missing'
        in compare_all(ALIKE, ALIKE | {"extra": "x"})[0]
    )
    assert "sizes is missing in process 1, and [2, 4]" in compare_all(ALIKE, fewer)[1]


@pytest.mark.parametrize("number", [8, 9, 20])
def test_a_long_list_is_cut(number):
    told = compare_all({}, {f"key_{i:02}": i for i in range(number)})[0]
    assert told.count(" in process 1,") == 8
    assert (f"and {number - 8} more" in told) == (number > 8)
