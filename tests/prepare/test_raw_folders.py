"""Folders and archives of images: what is a split, and what a class."""

import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from official_archives import (
    encode,
    random_images,
    write_files,
    write_tar,
    write_zip,
)
from raw_splits import read

from dig_jax.errors import InputError
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.splits import ArraySplit

ONE, TWO, THREE = (encode(np.full((4, 4, 3), i, np.uint8)) for i in (1, 2, 3))

JPEG, PPM = (encode(np.full((4, 4, 3), 4, np.uint8), kind) for kind in ("JPEG", "PPM"))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize(
    ("files", "class_names", "splits"),
    [
        ({"a.png": ONE, "b.JPG": TWO}, (), {"train": [(ONE, 0), (TWO, 0)]}),
        (
            {"dog/x.png": ONE, "cat/deep/er/y.png": TWO, "notes.txt": b"no image"},
            ("cat", "dog"),
            {"train": [(ONE, 1), (TWO, 0)]},
        ),
        (
            {"train/a.png": ONE, "train/b.png": TWO, "val/c.png": THREE},
            (),
            {"train": [(ONE, 0), (TWO, 0)], "validation": [(THREE, 0)]},
        ),
        (
            {"train/cat/a.png": ONE, "train/dog/b.png": TWO, "test/dog/c.png": THREE},
            ("cat", "dog"),
            {"train": [(ONE, 0), (TWO, 1)], "test": [(THREE, 1)]},
        ),
        (
            {"train/a.png": ONE, "cat/b.png": TWO},  # a class of that name
            ("cat", "train"),
            {"train": [(ONE, 1), (TWO, 0)]},
        ),
        (  # in a folder that holds them all, beside what macOS adds
            {
                "mine/cat/a.png": ONE,
                "mine/dog/b.png": TWO,
                "__MACOSX/mine/cat/._a.png": b"",
                "mine/.DS_Store": b"",
            },
            ("cat", "dog"),
            {"train": [(ONE, 0), (TWO, 1)]},
        ),
        (
            {"mine/all/a.png": ONE, "mine/all/b.png": TWO, "read.me": b"?"},
            (),
            {"train": [(ONE, 0), (TWO, 0)]},
        ),
        (
            {
                "x/Train/cat/a.png": ONE,
                "x/Train/dog/b.png": TWO,
                "x/TEST/dog/c.png": THREE,
            },
            ("cat", "dog"),
            {"train": [(ONE, 0), (TWO, 1)], "test": [(THREE, 1)]},
        ),
        (
            {"training/images/a.png": ONE, "testing/images/b.png": TWO},
            (),
            {"train": [(ONE, 0)], "test": [(TWO, 0)]},
        ),
        (
            {"10/a.png": ONE, "9/b.png": TWO, "x/c.png": THREE},
            ("9", "10", "x"),
            {"train": [(ONE, 1), (TWO, 0), (THREE, 2)]},
        ),
        (
            {"cat/a.jfif": JPEG, "cat/b.ppm": PPM, "dog/c": ONE, "dog/d.avi": b"RIFF"},
            ("cat", "dog"),
            {"train": [(JPEG, 0), (PPM, 0), (ONE, 1)]},
        ),
        (  # the same name, composed and decomposed
            {"caf\u00e9/a.png": ONE, "cafe\u0301/b.png": TWO, "tea/c.png": THREE},
            ("caf\u00e9", "tea"),
            {"train": [(ONE, 0), (TWO, 0), (THREE, 1)]},
        ),
    ],
)
def test_subfolders_are_splits_and_classes(kind, files, class_names, splits, tmp_path):
    if kind == "folder":
        source = write_files(tmp_path / "images", files)
    else:
        write = write_zip if kind == "zip" else write_tar
        source = write(tmp_path / f"images.{kind}", files)
    raw = open_folder(source)
    assert raw.class_names == class_names
    assert set(raw.splits) == set(splits)
    for name, expected in splits.items():
        found = list(zip(*read(raw.splits[name]), strict=True))
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must hold images"),
        ({"notes.txt": b"x", "page.html": b"x"}, "has 2 files of other sorts"),
        ({"a.png": ONE, "cat/b.png": TWO}, "outside and inside of cat"),
        ({"cat/b.png": TWO, "dog/notes.txt": b"x"}, "dog holds none"),
        ({"test/a.png": ONE}, "must have a folder train"),
        ({"train/a.png": ONE, "val/a.png": ONE, "valid/a.png": ONE}, "at most one"),
        ({"train/cat/a.png": ONE, "test/dog/a.png": ONE}, "has dog"),
        ({"train/cat/a.png": ONE, "test/a.png": ONE}, "has none"),
        ({"train/cat/a.png": ONE, "train/dog/a.png": ONE, "test/a.png": ONE}, "none"),
        (
            {"train/a.png": ONE, "test/a.png": ONE, "unlabeled/a.png": ONE},
            r"folders of splits \(test, train\) and beside them unlabeled",
        ),
        ({"train/cat/a.png": ONE, "extra/cat/a.png": ONE}, "beside them extra"),
        ({"train/a.png": ONE, "test/a.png": ONE, "b.png": ONE}, "beside them images"),
        (
            {"cat/train/a.png": ONE, "dog/train/a.png": ONE, "dog/test/b.png": ONE},
            "a folder of a split, train, inside of a class",
        ),
    ],
)
def test_folders_without_a_meaning_are_refused(files, message, tmp_path):
    source = tmp_path / "images"
    source.mkdir()
    with pytest.raises(InputError, match=message):
        open_folder(write_files(source, files))


def test_backslashes_of_a_windows_zip_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for name, content in (("pics\\cat\\a.png", ONE), ("pics\\dog\\b.png", TWO)):
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is, not as this system would spell it
            archive.writestr(info, content)
    raw = open_folder(tmp_path / "windows.zip")
    assert raw.class_names == ("cat", "dog")
    found = set(zip(*read(raw.splits["train"]), strict=True))
    assert found == {(ONE, 0), (TWO, 1)}


def test_utf8_of_a_zip_that_does_not_say_so_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for name, content in (("caf\u00e9/a.png", ONE), ("tea/b.png", TWO)):
            archive.writestr(name, content)
    content = (tmp_path / "mac.zip").read_bytes()
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # local, central
        place = content.index(start) + flags
        content = content[:place] + b"\0\0" + content[place + 2 :]
    (tmp_path / "mac.zip").write_bytes(content)
    assert open_folder(tmp_path / "mac.zip").class_names == ("caf\u00e9", "tea")


def test_two_spellings_of_one_file_are_refused(tmp_path):
    files = {"caf\u00e9/a.png": ONE, "cafe\u0301/a.png": TWO}
    with pytest.raises(InputError, match="each name once"):
        open_folder(write_zip(tmp_path / "twice.zip", files))


def test_what_is_no_image_is_counted_and_named(tmp_path):
    files = {"cat/a.png": ONE, "dog/b.png": TWO, "cat/notes.txt": b"x", "list": b"y"}
    raw = open_folder(write_files(tmp_path, files))
    assert raw.left_out == (
        "2 files that are no images (endings: .txt 1, none 1): cat/notes.txt, list"
    )


def test_identities_follow_the_images_and_labels(tmp_path, rng):
    write_files(tmp_path / "a", {"cat/x.png": ONE, "dog/y.png": TWO})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    same = [open_folder(tmp_path / name).splits["train"].identity for name in "ab"]
    assert same[0] == same[1]
    (tmp_path / "b" / "cat" / "x.png").write_bytes(ONE + b" ")
    assert open_folder(tmp_path / "b").splits["train"].identity != same[0]
    images, labels = random_images(rng, 3), np.arange(3)
    assert (
        len(
            {
                ArraySplit("here", images, labels).identity,
                ArraySplit("there", images, labels).identity,
                ArraySplit("here", images + 1, labels).identity,
                ArraySplit("here", images, labels + 1).identity,
            }
        )
        == 3
    )


def test_parts_of_files_can_be_pickled(tmp_path):
    write_files(tmp_path, {"cat/x.png": ONE, "dog/y.png": TWO})
    part = open_folder(tmp_path).splits["train"].part(0, 2)
    copy = pickle.loads(pickle.dumps(part))
    assert list(copy) == list(part)
    assert io.BytesIO(next(iter(copy)).image).read(4) == b"\x89PNG"
