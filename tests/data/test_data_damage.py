"""Damaged records are named, counted, replaced, and end a run when there are many."""

import itertools
import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from official_archives import encode, random_images
from tfds_files import write_tfds

from dig_jax.data.damage import DamagedRecordError, SoundRecords
from dig_jax.data.loader import load_batches, read_images, read_once
from dig_jax.data.synthetic import SyntheticSource
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.errors import InputError
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset

LENGTH, SIZE = 60, 8


class Broken(SyntheticSource):
    """A source some of whose records are damaged."""

    def __init__(self, damaged, length=LENGTH):
        super().__init__(
            split="train", image_shape=(4, 4, 3), num_classes=3, length=length, seed=0
        )
        self._damaged = set(damaged)

    def __getitem__(self, index):
        if index in self._damaged:
            raise DamagedRecordError(f"file, record {index}", "broken")
        return super().__getitem__(index)


def test_a_damaged_record_is_replaced_by_the_next_sound_one():
    records = SoundRecords(Broken([3, 4, 59]), max_damaged_share=1.0)
    for index, expected in ((2, 2), (3, 5), (4, 5), (59, 0)):
        found = records.read(index)
        assert (found.index, found.num_damaged) == (expected, (expected - index) % 60)
        image = records.source[expected]["image"]
        np.testing.assert_array_equal(found.record["image"], image)
    assert records.damaged == {3, 4, 59}


def test_each_damaged_record_is_logged_once_with_file_and_record(caplog):
    records = SoundRecords(Broken([3, 5]), max_damaged_share=1.0)
    with caplog.at_level(logging.WARNING, logger="absl"):
        for index in (3, 5, 3, 3):
            records.read(index)
    lines = [r.getMessage() for r in caplog.records]
    assert [re.findall(r"file, record (\d)", line) for line in lines] == [["3"], ["5"]]


@pytest.mark.parametrize(
    ("share", "allowed"), [(0.0, 0), (0.05, 3), (0.1, 6), (0.099, 5), (0.5, 30)]
)
def test_as_many_as_the_share_of_the_records_may_be_damaged(share, allowed):
    sound_enough = Broken(range(0, 2 * allowed, 2))
    records = SoundRecords(sound_enough, max_damaged_share=share)
    for index in [*range(LENGTH)] * 3:  # in whatever epoch
        records.read(index)
    assert len(records.damaged) == allowed
    records = SoundRecords(Broken(range(0, 60, 2)), max_damaged_share=share)
    if allowed < 30:
        for index in range(2 * allowed):
            records.read(index)
        with pytest.raises(InputError, match=r"damaged.*file, record \d+: broken"):
            records.read(2 * allowed)


def test_a_source_without_a_sound_record_ends():
    with pytest.raises(InputError, match="Every record"):
        SoundRecords(Broken(range(3), length=3), max_damaged_share=1.0).read(1)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
        load_batches(Broken([]), batch_size=1, seed=0, max_damaged_share=share)


def take(source, num_steps=8, **options):
    options = {"batch_size": 12, "seed": 7, "max_damaged_share": 1.0} | options
    batches = load_batches(source, **options)
    taken = list(itertools.islice(batches, num_steps))
    batches.close()
    return taken


def assert_same_batches(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        for key in mine:
            np.testing.assert_array_equal(mine[key], other[key], err_msg=key)


DAMAGED = (0, 7, 8, 9, 31, 59)


@pytest.mark.parametrize("num_threads", [0, 1, 16])
def test_batches_are_whole_and_alike_whoever_reads_them(num_threads):
    source = Broken(DAMAGED)
    batches = take(source, num_threads=num_threads)
    assert_same_batches(batches, take(source, num_threads=4))
    for batch in batches:
        assert batch["image"].shape == (12, 4, 4, 3)
        assert not set(batch["id"].tolist()) & set(DAMAGED)
        for row, index in enumerate(batch["id"].tolist()):
            np.testing.assert_array_equal(batch["image"][row], source[index]["image"])
    # Five batches are an epoch, and 7, 8, 9 are passed three, two times and once.
    assert sum(batch["damaged"] for batch in batches[:5]) == 3 + 6 + 1 - 1 + 1


def test_hosts_and_resumed_runs_see_the_same_replacements():
    source = Broken(DAMAGED)
    whole = take(source)
    hosts = [take(source, process_index=h, process_count=2) for h in (0, 1)]
    for step, parts in enumerate(zip(*hosts, strict=True)):
        for key in ("image", "label", "id"):
            joined = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(joined, whole[step][key])
    assert_same_batches(take(source, 3, start_step=5), whole[5:])


@pytest.mark.parametrize("num_threads", [0, 4])
def test_every_record_once_has_each_damaged_one_replaced(num_threads):
    source = Broken(DAMAGED)
    batches = list(
        read_once(source, batch_size=7, num_threads=num_threads, max_damaged_share=1.0)
    )
    ids = np.concatenate([batch["id"] for batch in batches]).tolist()
    for index, found in enumerate(ids):
        following = [(index + k) % LENGTH for k in range(LENGTH)]
        assert found == next(i for i in following if i not in DAMAGED)
    images = np.concatenate([batch["image"] for batch in batches])
    for image, index in zip(images, ids, strict=True):
        np.testing.assert_array_equal(image, source[index]["image"])
    # 7, 8 and 9 are passed three, two times and once.
    damaged = {row // 7: 0 for row in range(LENGTH)}
    for row, count in {0: 1, 7: 3, 8: 2, 9: 1, 31: 1, 59: 2}.items():
        damaged[row // 7] += count
    assert [int(batch["damaged"]) for batch in batches] == list(damaged.values())


def test_too_much_damage_ends_the_loader_in_threads():
    with pytest.raises(InputError, match=r"6 of 60 records .* at most 5.4 may be"):
        take(Broken(range(0, 60, 2)), max_damaged_share=0.09)


# Files


def write(folder, rng):
    """Sixty records in two files, and their pixels in order."""
    images = random_images(rng, LENGTH, SIZE, SIZE)
    split = ArraySplit("memory", images, np.arange(LENGTH) % 3)
    raw = RawDataset({"train": split}, ("a", "b", "c"), encoded=False, source="test")
    rule = ImageRule((SIZE, SIZE, 3), "none", 3)
    path = folder / "dig_a" / "1.0.0"
    shard_bytes = LENGTH // 2 * SIZE * SIZE * 3
    prepare(raw, path, rule, advance=lambda count: None, shard_bytes=shard_bytes)
    return path


def open_source(path):
    builder = tfds.builder_from_directory(path)
    return TFDSSource("a", builder, split="train")


def list_damaged(source):
    """The place of each damaged record, by index."""
    found = {}
    for index in range(len(source)):
        try:
            source[index]
        except DamagedRecordError as error:
            found[index] = error.place
    return found


def test_flipped_bits_damage_their_own_record_and_no_other(tmp_path, rng):
    path = write(tmp_path, rng)
    good = read_images(open_source(path))
    file = sorted(path.glob("*.array_record-*"))[1]
    sound = file.read_bytes()
    offsets = rng.integers(64, sound.rindex(b"image"), 20)
    for offset in offsets:
        content = bytearray(sound)
        content[offset] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        source = open_source(path)
        damaged = list_damaged(source)
        assert len(damaged) <= 1  # a few bytes belong to no record
        for index, place in damaged.items():
            assert place == f"{file}, record {index - 30}"
        for index in set(range(LENGTH)) - set(damaged):
            np.testing.assert_array_equal(source[index]["image"], good.images[index])


def test_a_few_damaged_records_are_read_over_and_many_end_the_run(tmp_path, rng):
    path = write(tmp_path, rng)
    good = read_images(open_source(path))
    file = sorted(path.glob("*.array_record-*"))[0]
    content = bytearray(file.read_bytes())
    # A record has some 230 bytes: each of these is in another.
    for offset in range(2000, 2000 + 5 * 1000, 1000):
        content[offset] ^= 0x10
    file.write_bytes(content)
    damaged = sorted(list_damaged(open_source(path)))
    assert 0 < len(damaged) <= 5
    found = read_images(open_source(path), max_damaged_share=0.2)
    for index in range(LENGTH):
        replaced = next(i for i in range(index, LENGTH) if i not in damaged)
        np.testing.assert_array_equal(found.images[index], good.images[replaced])
    with pytest.raises(InputError, match=r"array_record-00000-of-00002, record \d+"):
        read_images(open_source(path))


def test_a_cut_off_file_damages_its_records_alone(tmp_path, rng):
    path = write(tmp_path, rng)
    file = sorted(path.glob("*.array_record-*"))[1]
    file.write_bytes(file.read_bytes()[:-100])
    assert sorted(list_damaged(open_source(path))) == list(range(30, 60))
    with pytest.raises(InputError, match="Prepare it again"):
        read_images(open_source(path))


def test_a_missing_file_is_named_at_once(tmp_path, rng):
    path = write(tmp_path, rng)
    file = sorted(path.glob("*.array_record-*"))[1]
    file.unlink()
    with pytest.raises(InputError, match=f"not whole: {file.name} is missing"):
        open_source(path)


def test_a_read_that_fails_once_is_tried_again(tmp_path, rng, monkeypatch):
    source = open_source(write(tmp_path, rng))
    expected = read_images(source).images
    again = open_source(source_path(source))
    failed = []

    class Flaky:
        def __init__(self, records):
            self._records = records

        def __len__(self):
            return len(self._records)

        def __getitem__(self, index):
            if index not in failed:
                failed.append(index)
                raise RuntimeError("503 Service Unavailable")
            return self._records[index]

    monkeypatch.setattr(again, "_records", Flaky(again._records))
    np.testing.assert_array_equal(read_images(again).images, expected)
    assert len(failed) == LENGTH


def source_path(source):
    return Path(source._places(0).partition(", ")[0]).parent


def write_records(folder, feature, contents):
    """A data set of TFDS's with these serialized values of its image."""
    features = tfds.features.FeaturesDict(
        {"image": feature, "label": tfds.features.ClassLabel(num_classes=3)}
    )
    builder = write_tfds(folder, "a", features, contents)
    return TFDSSource("a", builder, split="train")


def serialize(image, label):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(image)
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


def test_sound_bytes_that_are_no_image_or_label_are_damage(tmp_path, rng):
    good, other = (encode(image) for image in random_images(rng, 2, 4, 4))
    wide = encode(random_images(rng, 1, 4, 5)[0])
    grey = encode(random_images(rng, 1, 4, 4)[0, ..., 0])
    contents = [
        serialize(good, 2),
        serialize(good[:30], 0),
        serialize(b"<html>404</html>", 0),
        serialize(wide, 0),
        serialize(grey, 0),
        serialize(good, 3),
        serialize(good, -1),
        b"no example",
        b"",
        serialize(other, 0),
    ]
    feature = tfds.features.Image(shape=(4, 4, 3))
    source = write_records(tmp_path / "png", feature, contents)
    assert sorted(list_damaged(source)) == list(range(1, 9))
    feature = tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8, encoding="bytes")
    contents = [serialize(bytes(length), 0) for length in (48, 47, 49, 0)]
    source = write_records(tmp_path / "bytes", feature, contents)
    assert sorted(list_damaged(source)) == [1, 2, 3]


def test_another_kind_of_feature_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"Image or uint8 Tensor .* and has Text"):
        write_records(tmp_path / "text", tfds.features.Text(), [b""])


def test_the_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(DamagedRecordError("file, record 3", "broken")))
    assert (error.place, error.reason) == ("file, record 3", "broken")
    assert str(error) == "file, record 3: broken"
