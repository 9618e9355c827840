"""Lines of JSON: whole and right, or set aside and told."""

import json
import logging
import os
import random

import pytest
from absl import logging as absl_logging

from dig_jax.files.json_lines import (
    append_line,
    read_lines,
    set_damage_aside,
    to_line,
)

RECORDS = [{"step": i, "text": "\u00e9 | }", "loss": 1 / (i + 1)} for i in range(3)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "scores.jsonl"
    for record in RECORDS:
        append_line(path, record)
    return path


@pytest.fixture
def told(caplog):
    logger = absl_logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.levelno >= 30]
    logger.removeHandler(caplog.handler)
    assert logging.WARNING == 30


def test_lines_are_json_and_come_back(path):
    assert read_lines(path) == RECORDS
    for line, record in zip(path.read_text().splitlines(), RECORDS, strict=True):
        assert json.loads(line).items() >= record.items()
    assert read_lines(path.with_name("none.jsonl")) == []


def test_no_flipped_bit_comes_back_as_a_record(path):
    good, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        place, bit = chance.randrange(len(good)), chance.randrange(8)
        damaged = bytearray(good)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        found = read_lines(path)
        assert all(record in RECORDS for record in found)
        assert len(found) in (1, 2) or bytes(damaged).split() == good.split()


def test_lines_of_older_versions_are_read_and_new_ones_follow(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    append_line(path, {"step": 9})
    assert read_lines(path) == [*RECORDS, {"step": 9}]


@pytest.mark.parametrize("cut", range(1, len(to_line(RECORDS[2])), 7))
def test_a_torn_line_is_told_set_aside_and_not_glued_to_the_next(path, cut, told):
    path.write_bytes(path.read_bytes()[:-cut])
    whole = RECORDS if cut == 1 else RECORDS[:2]
    assert read_lines(path) == whole
    append_line(path, {"step": 9})
    assert read_lines(path) == [*whole, {"step": 9}]
    aside = path.with_name("scores.jsonl.damaged")
    if cut > 1:
        assert aside.read_text() == to_line(RECORDS[2])[:-cut] + "\n"
        assert any("scores.jsonl.damaged" in message for message in told())
    else:
        assert not aside.exists()


def test_all_damage_is_set_aside_before_a_file_is_written_anew(path, told):
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"0.5", b"0.1")
    path.write_bytes(b"\n".join(lines)[:-9])
    set_damage_aside(path)
    assert read_lines(path) == RECORDS[:1]
    assert path.read_text() == to_line(RECORDS[0])
    aside = path.with_name("scores.jsonl.damaged").read_bytes()
    assert aside == lines[1] + b"\n" + lines[2][:-8] + b"\n"
    assert told()


def test_a_full_disk_names_the_file_and_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def write(descriptor, data, real=os.write):
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", write)
    with pytest.raises(OSError, match=r"No space left.*scores\.jsonl"):
        append_line(path, {"step": 9})
    assert path.read_bytes() == before
