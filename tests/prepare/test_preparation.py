"""A data set is written whole or not at all, and goes on after anything."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import tensorflow_datasets as tfds
from official_archives import encode, random_images, write_files

from dig_jax.data.loader import read_images
from dig_jax.data.tfds_source import TFDSSource
from dig_jax.errors import InputError
from dig_jax.prepare import preparation
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset

SIZE = 8
RULE = ImageRule((SIZE, SIZE, 3), "none", 3)
SHARD_BYTES = 4 * SIZE * SIZE * 3  # four images


def make_raw(seed=0, number=10, num_classes=3):
    rng = np.random.default_rng(seed)
    splits = {}
    for split, length in (("train", number), ("test", 3)):
        images = random_images(rng, length, SIZE, SIZE)
        labels = np.arange(length) % max(1, num_classes)
        splits[split] = ArraySplit("memory", images, labels)
    names = tuple("abc"[:num_classes])
    return RawDataset(splits, names, encoded=False, source="a test")


def run(raw, path, rule=RULE, advance=lambda count: None, **options):
    return prepare(
        raw, path, rule, advance=advance, **({"shard_bytes": SHARD_BYTES} | options)
    )


def open_split(path, split):
    return TFDSSource("a test", tfds.builder_from_directory(path), split=split)


def version_folder(tmp_path):
    return tmp_path / "dig_a" / "1.0.0"


def file_bytes(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("num_classes", [0, 3])
def test_what_is_prepared_is_read_back(num_classes, tmp_path):
    path = version_folder(tmp_path)
    raw = make_raw(num_classes=num_classes)
    made = run(raw, path, RULE._replace(num_classes=num_classes))
    assert {s: len(r) for s, r in made.shards.items()} == {"train": 3, "test": 1}
    for split, images in raw.splits.items():
        source = open_split(path, split)
        assert source.num_classes == num_classes
        assert source.class_names == raw.class_names
        assert source.transform == "none"
        expected = list(images.part(0, len(images)))
        found = read_images(source)
        np.testing.assert_array_equal(found.images, [e.image for e in expected])
        np.testing.assert_array_equal(found.labels, [e.label for e in expected])


def test_tfds_reads_it_too(tmp_path):
    run(make_raw(), version_folder(tmp_path))
    builder = tfds.builder("dig_a", data_dir=str(tmp_path))
    records = builder.as_data_source("train")
    assert len(records) == 10
    assert records[0]["image"].shape == (SIZE, SIZE, 3)
    assert builder.info.features["label"].names == ["a", "b", "c"]
    assert len(builder.as_data_source("train[2:5]")) == 3


def test_checksums_are_those_of_the_files(tmp_path):
    path = version_folder(tmp_path)
    run(make_raw(), path)
    lines = (path / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == len(list(path.glob("*.array_record-*"))) == 4
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest


def test_fingerprints_follow_pixels_labels_and_transform_but_not_the_place(tmp_path):
    plain = make_raw()
    labels = np.roll(np.arange(10) % 3, 1)
    images = np.stack([i.image for i in make_raw().splits["train"].part(0, 10)])
    relabelled = {**plain.splits, "train": ArraySplit("memory", images, labels)}
    variants = {
        "plain": (plain, RULE),
        "again": (make_raw(), RULE),
        "seed": (make_raw(seed=1), RULE),
        "labels": (plain._replace(splits=relabelled), RULE),
        "transform": (plain, RULE._replace(transform="box")),
    }
    fingerprints = {}
    for name, (raw, rule) in variants.items():
        path = version_folder(tmp_path / name)
        run(raw, path, rule)
        fingerprints[name] = open_split(path, "train").fingerprint
    assert fingerprints["plain"] == fingerprints.pop("again")
    assert len(set(fingerprints.values())) == len(fingerprints)


def test_progress_tells_of_every_image_once(tmp_path):
    counts = []
    run(make_raw(), version_folder(tmp_path), advance=counts.append)
    assert sum(counts) == 13


class StoppedError(Exception):
    pass


def stop_after(number):
    count = 0

    def advance(more):
        nonlocal count
        count += more
        if count >= number:
            raise StoppedError

    return advance


@pytest.mark.parametrize("number", [1, 5, 10, 12])
def test_a_stopped_preparation_goes_on_and_keeps_finished_shards(
    number, tmp_path, monkeypatch
):
    path = version_folder(tmp_path)
    with pytest.raises(StoppedError):
        run(make_raw(), path, advance=stop_after(number))
    assert not path.exists()
    written = []
    write_shard = preparation.write_shard
    monkeypatch.setattr(
        preparation,
        "write_shard",
        lambda path, *rest: written.append(path.name) or write_shard(path, *rest),
    )
    counts = []
    run(make_raw(), path, advance=counts.append)
    assert sum(counts) == 13
    # Shards of 3, 4, 3 and 3 images.
    finished = {1: 0, 5: 1, 10: 2, 12: 3}[number]
    assert len(written) == 4 - finished
    whole = version_folder(tmp_path / "whole")
    run(make_raw(), whole)
    assert file_bytes(path) == file_bytes(whole)


def test_a_killed_preparation_leaves_nothing_that_reads_as_complete(tmp_path):
    program = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        f"sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})\n"
        "from pathlib import Path\n"
        "from test_preparation import make_raw, run\n"
        "def advance(more, done=[0]):\n"
        "    done[0] += more\n"
        "    if done[0] == 9:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(make_raw(), Path(sys.argv[1]), advance=advance)\n"
    )
    path = version_folder(tmp_path)
    command = [sys.executable, "-c", program, str(path)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert not path.exists()
    left = list(path.with_name("1.0.0.incomplete").glob("*.array_record-*"))
    assert len([file for file in left if file.suffix != ".partial"]) == 2
    run(make_raw(), path)
    whole = version_folder(tmp_path / "whole")
    run(make_raw(), whole)
    assert file_bytes(path) == file_bytes(whole)


def test_a_shard_damaged_since_is_made_again(tmp_path):
    path = version_folder(tmp_path)
    with pytest.raises(StoppedError):
        run(make_raw(), path, advance=stop_after(12))
    file = sorted(path.with_name("1.0.0.incomplete").glob("*-train*"))[1]
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    run(make_raw(), path)
    whole = version_folder(tmp_path / "whole")
    run(make_raw(), whole)
    assert file_bytes(path) == file_bytes(whole)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"number": 9}, {"rule": RULE._replace(transform="box")}]
)
def test_another_data_set_starts_afresh(change, tmp_path):
    path = version_folder(tmp_path)
    with pytest.raises(StoppedError):
        run(make_raw(), path, advance=stop_after(12))
    rule = change.pop("rule", RULE)
    run(make_raw(**change), path, rule)
    whole = version_folder(tmp_path / "whole")
    run(make_raw(**change), whole, rule)
    assert file_bytes(path) == file_bytes(whole)


def test_a_finished_data_set_is_checked_and_left_alone(tmp_path):
    path = version_folder(tmp_path)
    made = run(make_raw(), path)
    before = file_bytes(path)
    counts = []
    assert run(make_raw(), path, advance=counts.append) == made
    assert sum(counts) == 13
    assert file_bytes(path) == before
    with pytest.raises(InputError, match="already there, made from a test"):
        run(make_raw(seed=1), path)
    next(path.glob("*-test*")).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"is damaged. Delete"):
        run(make_raw(), path)


def test_two_processes_do_not_prepare_the_same(tmp_path):
    path = version_folder(tmp_path)

    def advance(count):
        with pytest.raises(InputError, match="is being prepared by another process"):
            run(make_raw(), path)

    run(make_raw(), path, advance=advance)


def test_a_disk_without_room_is_refused_with_both_sizes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(60 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"up to 0.1 GB, and its disk has 0.1 GB free"):
        run(make_raw(), version_folder(tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "dig_a").write_text("a file")
    with pytest.raises(InputError, match="can be written"):
        run(make_raw(), version_folder(tmp_path))


# Image files


def make_files(folder, rng, bad=()):
    """Twelve images in two classes; some of them replaced by what is no image."""
    files = {}
    for index, pixels in enumerate(random_images(rng, 12, 10, 12)):
        files[f"{'ab'[index % 2]}/{index:02d}.png"] = encode(pixels)
    for name in bad:
        files[name] = b"<html>404</html>"
    return open_folder(write_files(folder, files))


FILE_RULE = ImageRule((SIZE, SIZE, 3), "area", 2)


def test_worker_processes_write_the_same_bytes(tmp_path, rng):
    raw = make_files(tmp_path / "images", rng)
    alone, counts = version_folder(tmp_path / "alone"), []
    together = version_folder(tmp_path / "together")
    run(raw, alone, FILE_RULE)
    run(raw, together, FILE_RULE, advance=counts.append, num_workers=2)
    assert sum(counts) == 12
    assert file_bytes(alone) == file_bytes(together)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_stops_and_is_named(num_workers, tmp_path, rng):
    raw = make_files(tmp_path / "images", rng, bad=["a/04.png"])
    path = version_folder(tmp_path)
    with pytest.raises(InputError, match=r"a/04.png cannot be used.*--skip_bad"):
        run(raw, path, FILE_RULE, num_workers=num_workers)
    assert not path.exists()


def test_bad_images_are_left_out_if_wanted_and_written_down(tmp_path, rng):
    raw = make_files(tmp_path / "images", rng, bad=["a/04.png", "b/07.png"])
    path = version_folder(tmp_path)
    made = run(raw, path, FILE_RULE._replace(skip_bad=True))
    skipped = [line for record in made.shards["train"] for line in record.skipped]
    assert sorted(line.split(":")[0][-8:] for line in skipped) == [
        "a/04.png",
        "b/07.png",
    ]
    metadata = json.loads((path / "metadata.json").read_text())
    assert sorted(metadata["skipped"]) == sorted(skipped)
    assert len(read_images(open_split(path, "train")).images) == 10


def test_what_was_converted_is_counted(tmp_path, rng):
    grey = random_images(rng, 3, 10, 10)[..., 0]
    files = {f"grey{i}.png": encode(image) for i, image in enumerate(grey)}
    files |= {f"small{i}.png": encode(grey[i][:4, :4]) for i in range(2)}
    raw = open_folder(write_files(tmp_path / "images", files))
    path = version_folder(tmp_path)
    run(raw, path, FILE_RULE._replace(num_classes=0))
    metadata = json.loads((path / "metadata.json").read_text())
    assert metadata["converted"] == {"grey": 5, "enlarged": 2}
    assert metadata["transform"] == "area"


def test_images_of_another_size_are_refused_without_a_transform(tmp_path, rng):
    raw = make_files(tmp_path / "images", rng)
    with pytest.raises(InputError, match=r"it is 10x12 .* must be 8x8"):
        run(raw, version_folder(tmp_path), FILE_RULE._replace(transform="none"))
