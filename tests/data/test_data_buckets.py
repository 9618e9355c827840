"""Data sets in a bucket are read by the code that reads local ones."""

from pathlib import Path

import numpy as np
import pytest
from bucket import BUCKET
from etils.epath import gpath
from official_archives import random_images

from dig_jax.data import create_dataset
from dig_jax.data.labels import label_counts
from dig_jax.data.loader import load_batches, read_images
from dig_jax.data.prepared import prepared_path
from dig_jax.errors import InputError
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset

NUM_IMAGES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the bucket holds: CIFAR-10's stand-in in two files, digits, an npz."""
    folder = tmp_path_factory.mktemp("bucket")
    images = random_images(np.random.default_rng(0), NUM_IMAGES)
    labels = np.arange(NUM_IMAGES) % 7
    raw = RawDataset(
        {"train": ArraySplit("memory", images, labels)},
        tuple("0123456789"),
        encoded=False,
        source="random images",
    )
    path = Path(prepared_path("cifar10", str(folder / "data")))
    rule = ImageRule((32, 32, 3), "none", 10)
    half = images.nbytes // 2
    prepare(raw, path, rule, advance=lambda count: None, shard_bytes=half)
    create_dataset("digits", data_dir=str(folder / "data"))
    np.savez(folder / "data" / "train.npz", images=images, labels=labels)
    return folder


@pytest.fixture
def served(folder, bucket):
    """The bucket with these data sets, and nothing asked of it yet."""
    bucket.put_folder(folder / "data", "data")
    bucket.log.clear()
    return bucket


def array_records(bucket):
    """Parts of array_record's files that were asked for, by the file's name."""
    return [
        path
        for method, path in bucket.log
        if method == "GET" and "/o/data/" in path and "array_record" in path
    ]


@pytest.mark.parametrize("name", ["cifar10", "digits", "npz"])
def test_a_bucket_is_read_as_a_folder_is(name, folder, served):
    remote = create_dataset(name, data_dir=f"{BUCKET}/data")
    local = create_dataset(name, data_dir=str(folder / "data"))
    assert remote.fingerprint == local.fingerprint
    np.testing.assert_array_equal(label_counts(remote), label_counts(local))
    batches = [load_batches(s, batch_size=8, seed=0) for s in (remote, local)]
    for _ in range(4):
        ours, theirs = map(next, batches)
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    for opened in batches:
        opened.close()
    # Of array_record's files, every one came from the bucket.
    files = {"cifar10": 2, "digits": 1, "npz": 0}[name]
    assert len(set(array_records(served))) == files


def test_a_bucket_is_read_whole(folder, served):
    remote = create_dataset("cifar10", data_dir=f"{BUCKET}/data")
    local = create_dataset("cifar10", data_dir=str(folder / "data"))
    np.testing.assert_array_equal(read_images(remote).images, read_images(local).images)
    assert len(array_records(served)) >= NUM_IMAGES


@pytest.mark.parametrize("name", ["cifar10", "npz"])
def test_what_is_not_in_a_bucket_is_said_with_its_name(name, served):
    with pytest.raises(InputError, match=f"{BUCKET}/other") as raised:
        create_dataset(name, data_dir=f"{BUCKET}/other")
    if name == "cifar10":  # it cannot be prepared there
        assert "--data_dir=FOLDER" in str(raised.value)
        assert f"copy what is then in FOLDER to {BUCKET}/other" in str(raised.value)


class NoRightsError(Exception):
    """Of a client's own class, as google.auth's are."""


@pytest.mark.parametrize("name", ["cifar10", "digits", "npz"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("Please install gcsfs"), "pip install gcsfs"),
        (NoRightsError("Anonymous caller\nhas no access"), "Anonymous caller has no"),
        (PermissionError("Forbidden: gs://bucket"), "gcloud auth application-default"),
        (ConnectionError("Name not known"), "ConnectionError: Name not known"),
    ],
)
def test_what_a_buckets_client_raises_becomes_one_line(
    name, error, message, monkeypatch
):
    def fail(*rest, **options):
        raise error

    class Backend:
        exists = isdir = open = listdir = glob = stat = makedirs = fail

    monkeypatch.setattr(gpath._GPath, "_backend", Backend)
    with pytest.raises(InputError, match=message) as raised:
        create_dataset(name, data_dir=f"{BUCKET}/data")
    assert len(str(raised.value).splitlines()) == 1
    assert f"data_dir={BUCKET}/data" in str(raised.value)


def test_digits_are_not_written_into_a_bucket(served):
    with pytest.raises(InputError, match=r"'digits' needs a folder .* gs://bucket/new"):
        create_dataset("digits", data_dir=f"{BUCKET}/new")


@pytest.mark.parametrize("name", ["cifar10", "digits", "npz"])
@pytest.mark.parametrize("data_dir", ["s3://bucket/data", "http://host/data"])
def test_other_storage_is_refused(name, data_dir):
    with pytest.raises(InputError, match=f"gs://bucket/folder, got '{data_dir}'"):
        create_dataset(name, data_dir=data_dir)
