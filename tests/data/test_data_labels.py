"""How often each label occurs, told by who prepared the images or counted."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from official_archives import encode, random_images, write_files

from dig_jax.data import create_dataset
from dig_jax.data.damage import DamagedRecordError
from dig_jax.data.labels import label_counts
from dig_jax.data.loader import read_images
from dig_jax.data.synthetic import SyntheticSource
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.errors import InputError
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset

LENGTHS = {"train": 50, "test": 11, "extra": 23}
RULE = ImageRule((8, 8, 3), "none", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set in several files, one of whose classes has no image, and labels."""
    rng = np.random.default_rng(0)
    labels = {
        s: rng.choice([0, 1, 3], n, p=[0.6, 0.3, 0.1]) for s, n in LENGTHS.items()
    }
    splits = {
        split: ArraySplit("memory", random_images(rng, len(y), 8, 8), y)
        for split, y in labels.items()
    }
    path = tmp_path_factory.mktemp("labels") / "dig_a" / "1.0.0"
    raw = RawDataset(splits, tuple("abcd"), encoded=False, source="a test")
    prepare(raw, path, RULE, advance=lambda count: None, shard_bytes=8 * 8 * 3 * 9)
    assert len(list(path.glob("*-train*"))) > 1
    return path, labels


def open_split(path, split):
    return TFDSSource("a", tfds.builder_from_directory(path), split=split)


@pytest.mark.parametrize("split", ["train", "test", "extra", "train+extra"])
def test_prepared_images_need_not_be_read_to_count_them(split, made, monkeypatch):
    path, labels = made
    source = open_split(path, split)
    expected = np.bincount(read_images(source).labels, minlength=4)
    joined = np.concatenate([labels[part] for part in split.split("+")])
    np.testing.assert_array_equal(expected, np.bincount(joined, minlength=4))
    monkeypatch.setattr(source, "_records", None)
    counts = label_counts(source)
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.int64
    assert counts[2] == 0


def test_parts_of_splits_are_counted(made):
    path, _ = made
    for split in ("train[5:20]", "train[:7]+test", "test[90%:]"):
        source = open_split(path, split)
        expected = np.bincount(read_images(source).labels, minlength=4)
        np.testing.assert_array_equal(label_counts(source), expected)


def test_images_prepared_by_an_older_version_are_counted(made, tmp_path):
    path, _ = made
    metadata = json.loads((path / "metadata.json").read_text())
    assert set(metadata.pop("label_counts")) == set(LENGTHS)
    old = tmp_path / "1.0.0"
    old.mkdir()
    for file in path.iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    (old / "metadata.json").write_text(json.dumps(metadata))
    for split in LENGTHS:
        now, before = open_split(path, split), open_split(old, split)
        np.testing.assert_array_equal(label_counts(before), label_counts(now))
        assert before.fingerprint == now.fingerprint


def test_what_was_left_out_is_not_counted(tmp_path, rng):
    files = {
        f"{'ab'[i % 2]}/{i}.png": encode(image)
        for i, image in enumerate(random_images(rng, 9, 8, 8))
    }
    files["a/4.png"] = b"<html>404</html>"
    raw = open_folder(write_files(tmp_path / "images", files))
    path = tmp_path / "dig_b" / "1.0.0"
    rule = RULE._replace(num_classes=2, skip_bad=True)
    prepare(raw, path, rule, advance=lambda count: None)
    assert label_counts(open_split(path, "train")).tolist() == [4, 4]


def test_images_without_classes_have_no_counts(tmp_path, rng):
    files = {"0.png": encode(random_images(rng, 1, 8, 8)[0])}
    raw = open_folder(write_files(tmp_path / "images", files))
    path = tmp_path / "dig_c" / "1.0.0"
    prepare(raw, path, RULE._replace(num_classes=0), advance=lambda count: None)
    assert label_counts(open_split(path, "train")).shape == (0,)
    assert label_counts(create_dataset("synthetic", num_classes=0)).shape == (0,)


class Broken(SyntheticSource):
    """A source every tenth of whose records is damaged."""

    def __getitem__(self, index):
        if index % 10 == 3:
            raise DamagedRecordError(f"file, record {index}", "broken")
        return super().__getitem__(index)


def test_a_damaged_records_successor_is_counted_and_many_are_refused():
    source = Broken(
        split="train", image_shape=(4, 4, 3), num_classes=5, length=40, seed=0
    )
    labels = [
        int(source[index + (index % 10 == 3)]["label"]) for index in range(len(source))
    ]
    counts = label_counts(source, max_damaged_share=0.1)
    assert counts.tolist() == np.bincount(labels, minlength=5).tolist()
    with pytest.raises(InputError, match=r"at most 0.04 may be"):
        label_counts(source)
