"""What a release computes, the next one computes: solvers and small backbones."""

import copy

import pytest
from golden_numbers import COMMAND, GOLDEN, Golden

CASES = [(kind, name) for kind, golden in GOLDEN.items() for name in golden.cases]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_numbers_are_the_golden_ones(kind, name):
    golden = GOLDEN[kind]
    change = golden.compare(name, golden.read().get(name), golden.cases[name]())
    assert not change, f"{change}: run {COMMAND}, if that is right"


@pytest.mark.parametrize("kind", GOLDEN)
def test_no_golden_number_is_of_what_is_gone(kind):
    assert GOLDEN[kind].read().keys() <= GOLDEN[kind].cases.keys()


def test_a_change_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("golden_numbers.FOLDER", tmp_path)
    golden = Golden("numbers.json", 1e-6, 12, {})
    assert golden.read() == {}
    numbers = [1.0, -200.0 / 3, 0.0]
    golden.write({"b on c": numbers, "a": numbers[:1]})
    found = golden.read()
    assert list(found) == ["a", "b on c"]
    assert golden.compare("b on c", found["b on c"], numbers) == ""
    moved = copy.copy(numbers)
    moved[2] += 1e-4  # 1.5e-6 of the largest
    assert "moved by 1.5e-06" in golden.compare("b on c", found["b on c"], moved)
    moved[2] = float("nan")
    assert "not finite" in golden.compare("b on c", numbers, moved)
    assert "3 golden numbers, 1 now" in golden.compare("b on c", numbers, moved[:1])
    assert "d: no golden numbers" in golden.compare("d", found.get("d"), numbers)
