"""ImageNet's archives, in small, are read; others are refused."""

import pickle
import zipfile

import numpy as np
import pytest
from official_archives import (
    encode,
    imagenet64_npz,
    random_images,
    write_files,
    write_tar,
    write_zip,
)
from raw_splits import pixels_and_labels, read

from dig_jax.errors import InputError
from dig_jax.prepare.imagenet import open_imagenet

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
