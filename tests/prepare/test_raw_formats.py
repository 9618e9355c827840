"""Official archives, in small, are read as what they are; others are refused."""

import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from official_archives import (
    CIFAR_NAMES,
    cifar10_files,
    encode,
    imagenet64_npz,
    random_images,
    sorted_rows,
    write_files,
    write_svhn,
    write_tar,
    write_zip,
)
from scipy.io import savemat

from dig_jax.errors import InputError
from dig_jax.prepare.celeba import open_celeba
from dig_jax.prepare.cifar10 import open_cifar10
from dig_jax.prepare.folder import open_folder
from dig_jax.prepare.imagenet import open_imagenet
from dig_jax.prepare.splits import ArraySplit, shuffled
from dig_jax.prepare.svhn import open_svhn


def read(split):
    """Images as they are handed out, and labels."""
    images = list(split.part(0, len(split)))
    return [image.image for image in images], [image.label for image in images]


def assert_same_images(split, images, labels):
    np.testing.assert_array_equal(
        sorted_rows(*read(split)), sorted_rows(images, labels)
    )


def test_an_order_is_random_complete_and_always_the_same():
    order = shuffled(1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, shuffled(1000))
    # The mean place of 100 of 1,000 has a standard deviation of 27: five of them.
    assert abs(order[:100].mean() - 499.5) < 137


def test_parts_of_a_split_make_the_whole(rng):
    split = ArraySplit("here", random_images(rng, 7), np.arange(7))
    parts = [label for start in (0, 3, 6) for label in list_labels(split, start)]
    assert parts == read(split)[1]


def list_labels(split, start):
    return [image.label for image in split.part(start, start + 3)]


# CIFAR-10


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


# SVHN


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


# ImageNet

FIRST, SECOND, LAST = "n01440764", "n01443537", "n15075141"  # in sorted order


def imagenet_files(rng):
    """Training images by synset, and validation images by number."""
    images = random_images(rng, 8, 20, 24)
    train = {
        f"{synset}/{synset}_{i}.JPEG": encode(images[i])
        for i, synset in enumerate([FIRST, FIRST, LAST, SECOND])
    }
    validation = {
        f"ILSVRC2012_val_{i + 1:08d}.JPEG": encode(images[4 + i]) for i in range(3)
    }
    return train, validation


def pixels_and_labels(split):
    contents, labels = read(split)
    return sorted(zip(contents, labels, strict=True))


def test_imagenets_folders_and_tars_are_the_same(tmp_path, rng):
    train, validation = imagenet_files(rng)
    folder = tmp_path / "folder"
    write_files(folder / "train", train)
    write_files(folder / "val", validation)
    tars = tmp_path / "tars"
    tars.mkdir()
    by_class = {}
    for synset in (FIRST, SECOND, LAST):
        members = {
            name.split("/")[1]: content
            for name, content in train.items()
            if name.startswith(synset)
        }
        path = write_tar(tmp_path / "class.tar", members)
        by_class[f"{synset}.tar"] = path.read_bytes()
    write_tar(tars / "ILSVRC2012_img_train.tar", by_class)
    write_tar(tars / "ILSVRC2012_img_val.tar", validation)
    from_folder, from_tars = open_imagenet(folder), open_imagenet(tars)
    for split in ("train", "validation"):
        assert pixels_and_labels(from_folder.splits[split]) == pixels_and_labels(
            from_tars.splits[split]
        )
    expected = sorted(zip(train.values(), [0, 0, 999, 1], strict=True))
    assert pixels_and_labels(from_tars.splits["train"]) == expected
    # The ground truth of the first three validation images, in the devkit's list.
    truth = ("n01751748", "n09193705", "n02105855")
    labels = [from_tars.class_names.index(synset) for synset in truth]
    expected = sorted(zip(validation.values(), labels, strict=True))
    assert pixels_and_labels(from_tars.splits["validation"]) == expected


def test_validation_images_may_lie_in_folders_of_their_synsets(tmp_path, rng):
    train, _ = imagenet_files(rng)
    write_files(tmp_path / "train", train)
    write_files(tmp_path / "val", train)
    splits = open_imagenet(tmp_path).splits
    assert pixels_and_labels(splits["validation"]) == pixels_and_labels(splits["train"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no training images"),
        ({"train/n00000000/x.JPEG": b"x"}, r"1,000 synsets"),
        ({"train/x.JPEG": b"x"}, r"1,000 synsets"),
        ({f"train/{FIRST}/x.png": b"x"}, r"no .JPEG files"),
        ({f"train/{FIRST}/x.JPEG": b"x"}, "no validation images"),
        (
            {
                f"train/{FIRST}/x.JPEG": b"x",
                "val/ILSVRC2012_val_00050001.JPEG": b"x",
            },
            r"named as in ILSVRC2012_val_00000001.JPEG",
        ),
    ],
)
def test_what_is_not_imagenet_is_refused(files, message, tmp_path):
    source = tmp_path / "imagenet"
    source.mkdir()
    with pytest.raises(InputError, match=message):
        open_imagenet(write_files(source, files))


def write_downsampled(folder, rng, nested=True):
    """Two training files and one for validation, and what is in them in order."""
    made = {"train": ([], []), "validation": ([], [])}
    for name, number in (
        ("train_data_batch_1.npz", 5),
        ("train_data_batch_2.npz", 4),
        ("val_data.npz", 3),
    ):
        files, images, labels = imagenet64_npz(rng, name, number)
        split = made["train" if name.startswith("train") else "validation"]
        split[0].extend(images)
        split[1].extend(labels.tolist())
        if nested:
            archive = f"Imagenet64_{name.removesuffix('.npz')}_npz.zip"
            write_zip(folder / archive, files, zipfile.ZIP_DEFLATED)
        else:
            write_files(folder, files)
    return made


@pytest.mark.parametrize("nested", [True, False])
def test_downsampled_imagenet_keeps_its_order_wherever_it_is_entered(
    nested, tmp_path, rng
):
    made = write_downsampled(tmp_path, rng, nested)
    raw = open_imagenet(tmp_path)
    assert raw.transform == "box"
    assert raw.class_names[:2] == ("n02119789", "n02100735")  # their own order
    for split, (images, labels) in made.items():
        found_images, found_labels = read(raw.splits[split])
        np.testing.assert_array_equal(found_images, images)
        assert found_labels == labels
    train = raw.splits["train"]
    for start, stop in ((6, 8), (8, 9), (0, 2), (2, 7), (4, 5)):
        found = [image.label for image in train.part(start, stop)]
        assert found == made["train"][1][start:stop]


def test_downsampled_imagenet_that_is_not_whole_is_refused(tmp_path, rng):
    write_downsampled(tmp_path, rng, nested=False)
    (tmp_path / "train_data_batch_1.npz").unlink()
    with pytest.raises(InputError, match="N from 1 on, and has N = 2"):
        open_imagenet(tmp_path)
    (tmp_path / "train_data_batch_2.npz").unlink()
    with pytest.raises(InputError, match="train and val, and has val"):
        open_imagenet(tmp_path)


def test_pickled_downsampled_imagenet_is_refused(tmp_path):
    pickled = {"train_data_batch_1": pickle.dumps({"data": 0})}
    write_zip(tmp_path / "Imagenet64_train_part1.zip", pickled)
    with pytest.raises(InputError, match=r"run any code.*npz version"):
        open_imagenet(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.array([1, 1001])}, "labels 1..1001"),
        ({"labels": np.array([0, 1])}, "labels 0..1"),
        ({"labels": np.array([1.0, 2.0])}, "got labels float64"),
        ({"labels": np.array([1])}, r"for 1 labels, got data uint8 \(2, 12288\)"),
        ({"data": np.zeros((2, 12288))}, "got data float64"),
        ({"data": np.zeros((2, 3072), np.uint8)}, r"got data uint8 \(2, 3072\)"),
        (
            {"data": np.array([None, None])},
            "Python objects are not read, got data object",
        ),
    ],
)
def test_other_npz_files_are_refused(arrays, message, tmp_path, rng):
    write_downsampled(tmp_path, rng, nested=False)
    good = {"data": np.zeros((2, 12288), np.uint8), "labels": np.array([1, 2])}
    np.savez(tmp_path / "val_data.npz", **(good | arrays))
    with pytest.raises(InputError, match=message):
        read(open_imagenet(tmp_path).splits["validation"])


def test_a_cut_off_npz_is_named(tmp_path, rng):
    write_downsampled(tmp_path, rng, nested=False)
    path = tmp_path / "val_data.npz"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match=r"val_data.npz"):
        open_imagenet(tmp_path)


# CelebA

PARTITION = "000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n000004.jpg 1\n"


def celeba_files(rng):
    images = random_images(rng, 4, 218, 178)
    return {
        f"img_align_celeba/{i + 1:06d}.jpg": encode(image, "JPEG")
        for i, image in enumerate(images)
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_celeba_is_split_by_its_list(zipped, tmp_path, rng):
    files = celeba_files(rng)
    if zipped:
        write_zip(tmp_path / "img_align_celeba.zip", files)
    else:
        write_files(tmp_path, files)
    (tmp_path / "list_eval_partition.txt").write_text(PARTITION)
    raw = open_celeba(tmp_path)
    assert raw.class_names == ()
    contents = list(files.values())
    for split, members in (("train", [0, 2]), ("validation", [3]), ("test", [1])):
        found, labels = read(raw.splits[split])
        assert sorted(found) == sorted(contents[i] for i in members)
        assert set(labels) == {0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "lacks one of them"),
        (PARTITION + "000005.jpg 0\n", r"names 000005.jpg, which"),
        ("000001.jpg 3\n", "line 1 must be"),
        ("000001.jpg 0\n000002.jpg 1\n", "no images for test"),
    ],
)
def test_a_list_that_does_not_fit_celeba_is_refused(text, message, tmp_path, rng):
    write_zip(tmp_path / "img_align_celeba.zip", celeba_files(rng))
    if text is not None:
        (tmp_path / "list_eval_partition.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_celeba(tmp_path)


# Folders

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
