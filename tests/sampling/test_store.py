"""Images that were drawn are kept, whatever ends the drawing."""

import json
import zlib

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.sampling.store import SampleStore, draw_into

SHAPE = (3, 2, 1)
SIZES = (4, 4, 1, 5)


TOTAL = sum(SIZES)


def draw(start):
    """Image i has the value i."""
    for first in range(start, TOTAL, 3):
        yield numbered(first, min(first + 3, TOTAL))


def numbered(first, last):
    values = np.arange(first, last, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (len(values), *SHAPE))


def fill(root):
    store, done = SampleStore(root, {"seed": 0}, SHAPE), 0
    for size in SIZES:
        store.append(numbered(done, done + size))
        done += size
    return store


def test_images_are_those_that_were_kept(tmp_path):
    fill(tmp_path)
    store = SampleStore(tmp_path, {"seed": 0}, SHAPE)
    assert store.num_images == TOTAL
    np.testing.assert_array_equal(store.images(9), numbered(0, 9))


def test_another_provenance_has_a_place_of_its_own(tmp_path):
    fill(tmp_path)
    assert SampleStore(tmp_path, {"seed": 1}, SHAPE).num_images == 0


@pytest.mark.parametrize("name", ["images.u8", "batches.jsonl"])
def test_a_cut_anywhere_leaves_whole_batches(tmp_path, name):
    """A kill leaves a prefix of what was written: try each fifth, and the whole."""
    whole = (fill(tmp_path / "whole").folder / name).read_bytes()
    boundaries = np.cumsum((0, *SIZES)).tolist()
    found = set()
    for length in (*range(0, len(whole), 5), len(whole)):
        folder = fill(tmp_path / "cut").folder
        (folder / name).write_bytes(whole[:length])
        store = SampleStore(tmp_path / "cut", {"seed": 0}, SHAPE)
        assert store.num_images in boundaries
        found.add(store.num_images)
        images = draw_into(store, TOTAL, draw)
        np.testing.assert_array_equal(images, numbered(0, TOTAL))
        store.delete()
    assert found == set(boundaries)


def test_a_flipped_bit_costs_its_batch_and_those_after_it(tmp_path):
    folder = fill(tmp_path).folder
    data = bytearray((folder / "images.u8").read_bytes())
    data[5 * 6] ^= 1  # in the second batch
    (folder / "images.u8").write_bytes(bytes(data))
    assert SampleStore(tmp_path, {"seed": 0}, SHAPE).num_images == 4


def test_drawing_begins_where_it_ended(tmp_path):
    store = SampleStore(tmp_path, {"seed": 0}, SHAPE)
    store.append(numbered(0, 5))
    starts, told = [], []

    def draw_and_tell(start):
        starts.append(start)
        return draw(start)

    draw_into(store, TOTAL, draw_and_tell, told.append)
    assert told == [8, 11, 14]
    draw_into(store, TOTAL, draw_and_tell)
    assert starts == [5]


def test_more_images_than_there_are_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="holds 14 images, got 15"):
        fill(tmp_path).images(15)


def test_a_deleted_store_leaves_nothing(tmp_path):
    fill(tmp_path / "samples").delete()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_says_what_its_images_are(tmp_path):
    text = (fill(tmp_path).folder / "provenance.json").read_text()
    assert json.loads(text) == {"seed": 0}


def test_a_batch_that_is_damaged_while_others_are_drawn_is_drawn_again(tmp_path):
    store, calls = SampleStore(tmp_path, {"seed": 0}, SHAPE), []

    def damage(num_images):
        calls.append(num_images)
        if calls == [3, 6]:
            with (store.folder / "images.u8").open("r+b") as file:
                file.seek(4 * 6)
                file.write(b"\xff")

    images = draw_into(store, TOTAL, draw, damage)
    np.testing.assert_array_equal(images, numbered(0, TOTAL))
    assert calls == [3, 6, 9, 12, 14, 6, 9, 12, 14]


def test_a_disk_that_damages_all_is_told(tmp_path):
    store = SampleStore(tmp_path, {"seed": 0}, SHAPE)

    def damage(_):
        (store.folder / "images.u8").write_bytes(bytes(6))

    with pytest.raises(InputError, match=r"do not come back .* 3 times"):
        draw_into(store, TOTAL, draw, damage)


def test_images_of_an_older_version_are_kept(tmp_path):
    folder = fill(tmp_path).folder
    done, lines = 0, []
    for size in SIZES:
        done += size
        crc32 = zlib.crc32(numbered(done - size, done).tobytes())
        lines.append(json.dumps({"num_images": done, "crc32": crc32}) + "\n")
    (folder / "batches.jsonl").write_text("".join(lines))
    store = SampleStore(tmp_path, {"seed": 0}, SHAPE)
    assert store.num_images == TOTAL
    store.append(numbered(0, 2))
    assert SampleStore(tmp_path, {"seed": 0}, SHAPE).num_images == TOTAL + 2
