"""IDX files: the MNIST family's, in small, and what only looks like them."""

import gzip
import hashlib
import re
import shlex
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_archives import write_files, write_zip

from dig_jax.data import DATASETS
from dig_jax.data.loader import read_images
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.options.keys import call_with_section
from dig_jax.prepare import idx
from dig_jax.prepare.command import main
from dig_jax.prepare.idx import KNOWN_SETS, ROLES, open_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MNIST = (
    *("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)
CODES = {"u1": 0x08, "i4": 0x0C, "f4": 0x0D}


def write_idx(array):
    """The file of an array, as http://yann.lecun.com/exdb/mnist describes it."""
    array = np.asarray(array)
    head = struct.pack(">4B", 0, 0, CODES[array.dtype.str[1:]], array.ndim)
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return head + lengths + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def arrays(rng):
    """By ROLES."""
    return {
        "train images": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "train labels": np.arange(12, dtype=np.uint8) % 10,
        "test images": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "test labels": np.arange(5, dtype=np.uint8),
    }


def files_of(arrays, names=MNIST):
    contents = [write_idx(array) for array in arrays.values()]
    return {
        name: gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        for name, content in zip(names, contents, strict=True)
    }


def read(split):
    """Images and labels of a split, in the order of the file."""
    images = list(split.part(0, len(split)))
    order = np.argsort([int(image.place.rpartition(" ")[2]) for image in images])
    return (
        np.stack([images[i].image for i in order])[..., 0],
        np.array([images[i].label for i in order]),
    )


def assert_read(raw, arrays):
    for split in ("train", "test"):
        images, labels = read(raw.splits[split])
        np.testing.assert_array_equal(images, arrays[f"{split} images"])
        np.testing.assert_array_equal(labels, arrays[f"{split} labels"])


def read_as_told(output, split) -> Any:
    """The data set, opened with the flags that the command printed last."""
    words = shlex.split(output.splitlines()[-1])
    flags = [re.fullmatch(r"--config\.data\.(\w+)=(.*)", word) for word in words]
    section: dict[str, Any] = {flag[1]: flag[2] for flag in flags if flag}
    name = section.pop("name")
    return call_with_section("data", DATASETS[name], section, split=split)


@pytest.mark.parametrize(
    "names",
    [
        MNIST,
        [name.removesuffix(".gz") for name in MNIST],
        [name.replace("-idx", ".idx").removesuffix(".gz") for name in MNIST],
        [f"data/{name.replace('t10k', 'test')}/{name.upper()}" for name in MNIST],
        [
            *("qmnist-train-images-idx3-ubyte.gz", "qmnist-train-labels-idx1-ubyte"),
            *("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx1-ubyte.gz"),
        ],
    ],
)
def test_the_four_files_are_known_by_their_usual_names(names, tmp_path, arrays):
    names = [n[:-3] + ".gz" if n.endswith(".GZ") else n for n in names]
    files = {**files_of(arrays, names), "README.md": b"not an image"}
    raw = open_idx(write_files(tmp_path / "folder", files))
    assert_read(raw, arrays)
    assert raw.image_shape == (28, 28, 1)
    assert raw.class_names == tuple("0123456789")
    assert_read(open_idx(write_zip(tmp_path / "all.zip", files)), arrays)


def test_labels_of_qmnist_are_the_first_of_eight_numbers(tmp_path, arrays, rng):
    names = [f"qmnist-{n.replace('t10k', 'test')}" for n in MNIST]
    names = [n.replace("labels-idx1-ubyte", "labels-idx2-int") for n in names]
    eight = dict(arrays)
    for role in ("train labels", "test labels"):
        others = rng.integers(0, 10**6, (len(arrays[role]), 7), dtype=np.int32)
        eight[role] = np.column_stack([arrays[role].astype(np.int32), others])
    assert_read(open_idx(write_files(tmp_path, files_of(eight, names))), arrays)


def test_images_of_emnist_are_turned_and_its_letters_start_at_0(tmp_path, arrays):
    names = [f"emnist-letters-{n.replace('t10k', 'test')}" for n in MNIST]
    stored = {
        role: array + 1 if "labels" in role else array.transpose(0, 2, 1)
        for role, array in arrays.items()
    }
    raw = open_idx(write_files(tmp_path, files_of(stored, names)))
    assert_read(raw, arrays)
    assert raw.class_names == tuple("0123456789")
    assert "labels from 0 on; rows and columns exchanged" in raw.source


def test_a_file_that_is_there_packed_and_unpacked_is_read_once(tmp_path, arrays):
    files = files_of(arrays)
    files["raw/train-images-idx3-ubyte"] = write_idx(arrays["train images"])
    assert_read(open_idx(write_files(tmp_path, files)), arrays)
    other = write_idx(arrays["train images"][::-1])
    write_files(tmp_path, {"raw/train-images-idx3-ubyte": other})
    with pytest.raises(InputError, match="train images once, and holds files that dif"):
        open_idx(tmp_path)


def test_files_of_two_data_sets_are_refused(tmp_path, arrays):
    names = [f"emnist-digits-{n.replace('t10k', 'test')}" for n in MNIST]
    files = files_of(arrays) | files_of(arrays, names)
    with pytest.raises(InputError, match="those of emnist-digits, no name: put each"):
        open_idx(write_files(tmp_path, files))


def test_published_files_are_told_from_others(tmp_path, arrays, monkeypatch):
    files = files_of(arrays)
    packed = tuple(hashlib.md5(content).hexdigest() for content in files.values())
    contents = [gzip.decompress(content) for content in files.values()]
    unpacked = tuple(hashlib.md5(content).hexdigest() for content in contents)
    names = tuple("abcdefghij")
    monkeypatch.setitem(idx.KNOWN_SETS, "both", idx.KnownSet(names, packed, unpacked))
    monkeypatch.setitem(idx.KNOWN_SETS, "packed", idx.KnownSet(names, packed))
    write_files(tmp_path / "gz", files)
    unzipped = {n.removesuffix(".gz"): c for n, c in zip(files, contents, strict=True)}
    write_files(tmp_path / "raw", unzipped)
    for folder, called in (("gz", "both"), ("gz", "packed"), ("raw", "both")):
        raw = open_idx(tmp_path / folder, called=called)
        assert raw.source == f"{called}, four IDX files as published (MD5)"
        assert raw.class_names == names
    told = open_idx(tmp_path / "raw", called="packed").source
    assert "test labels not compared: checksums are known of the .gz alone" in told
    changed = files_of(arrays | {"test labels": arrays["test labels"][::-1]})
    for called in ("both", "packed"):
        told = open_idx(write_files(tmp_path / "gz", changed), called=called).source
        assert told.endswith("files, other test labels than were published (MD5)")


def test_known_sets_have_a_checksum_for_each_file():
    for known in KNOWN_SETS.values():
        for digests in (known.packed, known.unpacked):
            assert len(digests) in (0, len(ROLES))
            assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)
        assert len(set(known.class_names)) == 10


def cut(content):
    return gzip.compress(gzip.decompress(content)[:-7], mtime=0)


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("train images", lambda c: None, "lacks train images"),
        ("train images", lambda c: c[:-9], "is no IDX file that can be read"),
        ("train images", lambda c: c[:30] + b"\xff" + c[31:], "is no IDX file that"),
        ("train images", cut, r"declares 9408 bytes.* \(12 x 28 x 28\) and has 9401"),
        ("test images", lambda c: c + c, "declares 3920 bytes.* and has more"),
        ("test labels", lambda c: b"", "starts with nothing"),
        ("test labels", lambda c: b"\0\0\x08", "starts with 00 00 08"),
        ("test labels", lambda c: b"\x89PNG\r\n", "starts with 89 50 4e 47"),
        ("test labels", lambda c: b"\0\0\x08\x01\0", "ends within the lengths"),
        ("test labels", lambda c: b"\0\0\x08\xff" + b"\xff" * 1020, "it declares"),
        (
            "test labels",
            lambda c: write_idx(np.zeros(5, "f4")),
            "whole numbers .* holds float32 with 1 .5.",
        ),
        ("test labels", lambda c: write_idx(np.zeros(4, "u1")), "holds 4 for 5 images"),
        (
            "test labels",
            lambda c: write_idx(np.array([0, 1, 2, 3, -1], "i4")),
            "labels from 0 to 65535, for classes, and has labels from -1 to 3",
        ),
        (
            "test images",
            lambda c: write_idx(np.zeros((5, 28, 27), "u1")),
            "images of 28 x 28, as .* has, and has 28 x 27",
        ),
        ("train images", lambda c: write_idx(np.zeros((0, 28, 28), "u1")), "no images"),
    ],
)
def test_damage_is_told_in_one_line_before_anything_is_written(
    role, change, message, tmp_path, arrays, capsys
):
    files = files_of(arrays)
    name = MNIST[ROLES.index(role)]
    content = change(files.pop(name))
    files |= {} if content is None else {name: content}
    source, data_dir = write_files(tmp_path / "idx", files), tmp_path / "data"
    arguments = ["idx", f"--source={source}", f"--data_dir={data_dir}"]
    assert main(arguments) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert not data_dir.exists()


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 3, 2, 1), (2, 1, 0, 3)])
def test_swapped_files_are_refused(order, tmp_path, arrays):
    swapped = {role: arrays[ROLES[i]] for role, i in zip(ROLES, order, strict=True)}
    message = "swapped" if order[0] == 1 else "for (12|5) images"
    with pytest.raises(InputError, match=message):
        open_idx(write_files(tmp_path, files_of(swapped)))


def test_labels_beyond_the_class_names_are_refused(tmp_path, arrays):
    source = write_files(tmp_path, files_of(arrays))
    with pytest.raises(InputError, match="labels from 0 to 2, for the 3 class names"):
        open_idx(source, class_names=("a", "b", "c"))
    small = {
        role: array[..., :14] if "im" in role else array
        for role, array in arrays.items()
    }
    source = write_files(tmp_path, files_of(small))
    with pytest.raises(InputError, match="28 x 28 to be mnist, and has 28 x 14"):
        open_idx(source, called="mnist")


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["idx", "--name=fashion_mnist"], "fashion_mnist"),
        (["mnist"], "mnist"),
        (["idx", "--name=letters", "--class_names=a,b,c,d,e,f,g,h,i,j"], "letters"),
        (["idx"], "idx"),
    ],
)
def test_what_is_prepared_is_read_as_told(arguments, called, tmp_path, arrays, capsys):
    source = write_files(tmp_path / "files", files_of(arrays))
    places = [f"--source={source}", f"--data_dir={tmp_path / 'data'}"]
    for _ in range(2):  # the second time it is there
        assert main([*arguments, *places]) == EXIT_DONE
    output = capsys.readouterr().out
    assert f"{called} is prepared in" in output
    for split in ("train", "test"):
        found = read_as_told(output, split)
        assert (found.name, found.image_shape) == (called, (28, 28, 1))
        images = read_images(found)
        order = np.lexsort(images.images.reshape(len(images.images), -1).T)
        wanted = arrays[f"{split} images"]
        expected = np.lexsort(wanted.reshape(len(wanted), -1).T)
        np.testing.assert_array_equal(images.images[order][..., 0], wanted[expected])
        labels = arrays[f"{split} labels"][expected]
        np.testing.assert_array_equal(images.labels[order], labels)
    known = KNOWN_SETS[called].class_names if called in KNOWN_SETS else None
    letters = tuple("abcdefghij") if called == "letters" else tuple("0123456789")
    assert found.class_names == (known or letters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar10", "--name=x"], "--name is for idx"),
        (["svhn", "--class_names=x,y"], "--class_names is for IDX files, not svhn"),
        (["idx", "--name=a/b"], "made of letters, digits"),
        (["idx", "--class_names=a,,b"], "a name for each label, no two alike"),
        (["idx"], "lacks train images, train labels, test images, test labels"),
        (["mnist", "--image_size=32"], "are for folder, not mnist"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, tmp_path, capsys):
    folder = write_files(tmp_path / "files", {"README": b"x"})
    if "32" in arguments[-1]:
        folder = write_files(folder, files_of(tiny_arrays()))
    assert main([*arguments, f"--source={folder}"]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err


def tiny_arrays():
    images, labels = np.zeros((2, 28, 28), "u1"), np.arange(2, dtype="u1")
    return dict(zip(ROLES, (images, labels) * 2, strict=True))


def test_another_shape_than_the_images_is_refused_where_they_are_read(
    tmp_path, arrays, capsys
):
    source = write_files(tmp_path / "files", files_of(arrays))
    data_dir = str(tmp_path / "data")
    assert main(["idx", f"--source={source}", f"--data_dir={data_dir}"]) == EXIT_DONE
    with pytest.raises(
        InputError, match=r"'idx' has images of 28x28x1 .*image_size=32"
    ):
        DATASETS["idx"](image_size=32, data_dir=data_dir)
    with pytest.raises(InputError, match=r"prepare idx --source=.*--name=other"):
        DATASETS["idx"](called="other", data_dir=data_dir)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_files_of_debians_package():
    raw = open_idx(DEBIAN, called="fashion_mnist")
    assert raw.source == "fashion_mnist, four IDX files as published (MD5)"
    assert raw.class_names[8] == "Bag"
    for split, number in (("train", 60_000), ("test", 10_000)):
        assert len(raw.splits[split]) == number
        labels = [image.label for image in raw.splits[split].part(0, number)]
        assert np.bincount(labels).tolist() == [number // 10] * 10
