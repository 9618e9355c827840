"""CIFAR-10's and SVHN's archives, in small, are read; others are refused."""

import pickle

import numpy as np
import pytest
from official_archives import (
    CIFAR_NAMES,
    cifar10_files,
    write_files,
    write_svhn,
    write_tar,
)
from raw_splits import assert_same_images
from scipy.io import savemat

from dig_jax.errors import InputError
from dig_jax.prepare.cifar10 import open_cifar10
from dig_jax.prepare.svhn import open_svhn


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_cifar10_is_its_planes_put_together(kind, tmp_path, rng):
    files, splits = cifar10_files(rng)
    if kind == "archive":
        source = write_tar(tmp_path / "cifar-10-binary.tar.gz", files, "w:gz")
    else:
        source = write_files(tmp_path, files) / "cifar-10-batches-bin"
    raw = open_cifar10(source)
    assert raw.class_names == tuple(CIFAR_NAMES)
    assert set(raw.splits) == {"train", "test"}
    for name, split in splits.items():
        assert_same_images(raw.splits[name], *split)


def test_pickled_cifar10_is_refused_with_a_word_about_the_binary_one(tmp_path):
    pickled = {"cifar-10-batches-py/data_batch_1": pickle.dumps({b"data": 0})}
    source = write_tar(tmp_path / "cifar-10-python.tar.gz", pickled, "w:gz")
    with pytest.raises(InputError, match=r"run any code.*cifar-10-binary.tar.gz"):
        open_cifar10(source)
    with pytest.raises(InputError, match=r"run any code.*cifar-10-binary.tar.gz"):
        open_cifar10(write_files(tmp_path / "unpacked", pickled))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_batch.bin": None}, r"lacks test_batch.bin"),
        ({"data_batch_3.bin": b"x" * 3072}, r"data_batch_3.bin .* 3073 bytes.* 3072"),
        ({"data_batch_3.bin": b""}, r"data_batch_3.bin"),
        ({"data_batch_3.bin": b"\x0a" * 3073}, r"a label 10, above 9"),
        ({"batches.meta.txt": b"cat\ndog\n"}, r"10 classes, and names 2"),
    ],
)
def test_other_cifar10_files_are_refused(change, message, tmp_path, rng):
    files, _ = cifar10_files(rng)
    for name, content in change.items():
        files[f"cifar-10-batches-bin/{name}"] = content
    files = {name: content for name, content in files.items() if content is not None}
    with pytest.raises(InputError, match=message):
        open_cifar10(write_files(tmp_path, files))


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "test", "extra")])
def test_svhn_is_its_matlab_arrays_with_ten_as_zero(splits, tmp_path, rng):
    made = write_svhn(tmp_path, rng, splits)
    raw = open_svhn(tmp_path)
    assert tuple(raw.splits) == splits
    assert raw.class_names == tuple("0123456789")
    for name in splits:
        assert_same_images(raw.splits[name], *made[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 2))}, "uint8 of 32x32x3xN"),
        ({"y": np.ones((2, 1))}, "uint8 of 32x32x3xN"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, "one label for each"),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))},
            "one label for each",
        ),
        (
            {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]])},
            "from 1 to 10, and has 0..1",
        ),
    ],
)
def test_other_matlab_files_are_refused(content, message, tmp_path, rng):
    write_svhn(tmp_path, rng, ("train", "test"))
    savemat(tmp_path / "train_32x32.mat", content)
    with pytest.raises(InputError, match=message):
        open_svhn(tmp_path)


def test_what_is_not_svhn_is_refused(tmp_path, rng):
    write_svhn(tmp_path, rng, ("train",))
    with pytest.raises(InputError, match=r"lacks test_32x32.mat"):
        open_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(rng.bytes(1000))
    with pytest.raises(InputError, match="no MATLAB 5 file"):
        open_svhn(tmp_path)
