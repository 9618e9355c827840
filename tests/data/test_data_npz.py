"""Images in npz files, and files that only look like them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dig_jax.config import load_config_file, with_sections
from dig_jax.data import create_dataset
from dig_jax.data.loader import load_batches, read_images
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.experiment.images import open_dataset

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"


@pytest.fixture
def arrays(rng):
    return {
        "images": rng.integers(0, 256, (9, 5, 6, 3), dtype=np.uint8),
        "labels": rng.integers(0, 4, 9),
    }


def create(folder, **options):
    return create_dataset("npz", data_dir=str(folder), **options)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path.parent


@pytest.mark.parametrize("keys", [("images", "labels"), ("arr_0", "arr_1")])
def test_images_and_labels_are_those_of_the_file(keys, tmp_path, arrays):
    renamed = dict(zip(keys, arrays.values(), strict=True))
    source = create(save(tmp_path / "test.npz", **renamed), split="test")
    found = read_images(source)
    np.testing.assert_array_equal(found.images, arrays["images"])
    np.testing.assert_array_equal(found.labels, arrays["labels"])
    assert source.num_classes == arrays["labels"].max() + 1


def test_medmnist_has_all_splits_in_one_file(tmp_path, rng):
    """As its authors save it: labels [image, 1], grey images without channels."""
    made = {
        prefix: (
            rng.integers(0, 256, (number, 28, 28), dtype=np.uint8),
            rng.integers(0, labels, (number, 1), dtype=np.uint8),
        )
        for prefix, number, labels in (("train", 9, 4), ("val", 5, 8), ("test", 4, 3))
    }
    made["val"][1][0] = 7  # a class that occurs here alone
    path = tmp_path / "organmnist.npz"
    np.savez(
        path,
        **{f"{prefix}_images": images for prefix, (images, _) in made.items()},
        **{f"{prefix}_labels": labels for prefix, (_, labels) in made.items()},
    )
    splits = {"train": "train", "validation": "val", "val": "val", "test": "test"}
    for split, prefix in splits.items():
        source = create(path, split=split, image_size=28, channels=1)
        found = read_images(source)
        np.testing.assert_array_equal(found.images[..., 0], made[prefix][0])
        np.testing.assert_array_equal(found.labels, made[prefix][1][:, 0])
        assert source.num_classes == 8
    assert pickle.loads(pickle.dumps(source))[3]["label"] == made["test"][1][3]
    with pytest.raises(
        InputError, match=r"no split 'extra'\. Available: train, val, te"
    ):
        create(path, split="extra")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros((9, 14), int)}, "labels must be 9 whole numbers"),
        ({"train_images": np.zeros((9, 28, 28, 28), np.uint8)}, "with 1 or 3 channels"),
        ({"test_labels": np.full((3, 1), -1)}, "must not be negative"),
        ({"test_labels": np.zeros(())}, "labels must be 0 whole numbers"),
    ],
)
def test_medmnists_other_tasks_are_refused(change, message, tmp_path):
    arrays = {
        "train_images": np.zeros((9, 28, 28), np.uint8),
        "train_labels": np.zeros((9, 1), int),
        "test_images": np.zeros((3, 28, 28), np.uint8),
        "test_labels": np.zeros((3, 1), int),
    }
    save(tmp_path / "chestmnist.npz", **arrays | change)
    with pytest.raises(InputError, match=message):
        create(tmp_path / "chestmnist.npz")


def test_a_split_is_a_file_or_data_dir_is_the_only_one(tmp_path, arrays):
    save(tmp_path / "train.npz", images=arrays["images"][:4])
    save(tmp_path / "held_out.npz", images=arrays["images"][4:])
    assert len(create(tmp_path)) == 4
    assert len(create(tmp_path, split="held_out")) == 5
    assert len(create(tmp_path / "train.npz", split="test")) == 4


def test_images_without_labels_are_unconditional(tmp_path, arrays):
    source = create(save(tmp_path / "train.npz", images=arrays["images"]))
    assert (source.num_classes, source.class_names) == (0, ())
    assert {int(source[i]["label"]) for i in range(9)} == {0}
    with pytest.raises(InputError, match="has no labels, and num_classes=3"):
        create(tmp_path, num_classes=3)


def test_grey_images_may_lack_their_last_axis(tmp_path, arrays):
    grey = arrays["images"][..., 0]
    source = create(save(tmp_path / "train.npz", images=grey), channels=1)
    np.testing.assert_array_equal(read_images(source).images, grey[..., None])


def test_the_number_of_classes_can_be_larger_than_what_occurs(tmp_path, arrays):
    save(tmp_path / "train.npz", **arrays)
    assert create(tmp_path, num_classes=10).num_classes == 10
    with pytest.raises(InputError, match="has a label 3, and num_classes=3"):
        create(tmp_path, num_classes=3)


def test_another_shape_than_the_images_is_refused(tmp_path, arrays):
    save(tmp_path / "train.npz", **arrays)
    create(tmp_path, image_size=(5, 6), channels=3)
    for options in ({"image_size": 5}, {"channels": 1}):
        with pytest.raises(InputError, match="has images of 5x6x3"):
            create(tmp_path, **options)


def test_the_fingerprint_is_that_of_the_content(tmp_path, arrays):
    other = {**arrays, "labels": (arrays["labels"] + 1) % 4}
    found = set()
    for name, variant in (("a", arrays), ("b", arrays), ("c", other)):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "train.npz", **variant)
        found.add(create(tmp_path / name).fingerprint)
    assert len(found) == 2


def test_a_pickle_holds_the_path_and_not_the_images(tmp_path, rng):
    images = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    source = create(save(tmp_path / "train.npz", images=images))
    content = pickle.dumps(source)
    assert len(content) < 10_000
    np.testing.assert_array_equal(pickle.loads(content)[7]["image"], images[7])


def test_batches_come_from_it(tmp_path, arrays):
    source = create(save(tmp_path / "train.npz", **arrays))
    batches = load_batches(source, batch_size=4, seed=0)
    batch = next(batches)
    batches.close()
    np.testing.assert_array_equal(batch["image"], arrays["images"][batch["id"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "needs an array images or arr_0, .* and has labels"),
        ({"images": np.zeros((9, 5, 6, 3), np.float32)}, "got images float32"),
        (
            {"images": np.zeros((9, 5, 6, 4), np.uint8)},
            r"got images uint8 \(9, 5, 6, 4\)",
        ),
        ({"images": np.zeros((9, 6), np.uint8)}, r"\(9, 6\)"),
        ({"images": np.zeros((0, 5, 6, 3), np.uint8)}, "there are no images"),
        ({"images": np.array([])}, "there are no images"),
        ({"labels": np.zeros(8, int)}, "labels must be 9 whole numbers"),
        ({"labels": np.zeros(9)}, "got labels float64"),
        ({"labels": np.arange(9) - 1}, "must not be negative"),
        ({"images": np.array([{}, {}])}, "Python objects are not read"),
    ],
)
def test_other_arrays_are_refused(change, message, tmp_path, arrays):
    kept = {k: v for k, v in (arrays | change).items() if v is not None}
    save(tmp_path / "train.npz", **kept)
    with pytest.raises(InputError, match=message):
        create(tmp_path)


def npy(shape, content=b""):
    """An npy file of uint8 that declares any shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n"
    length = struct.pack("<H", len(header))
    return b"\x93NUMPY\x01\x00" + length + header.encode() + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy((10**6, 64, 64, 3)),
            r"at most 8000000000 bytes are read.*, 12288000000 bytes",
        ),
        (npy((2**40, 2**40, 2**40, 3)), "at most 8000000000 bytes are read"),
        (npy((100, 32, 32, 3)), "it has 0 bytes of numbers, .*, 307200 bytes"),
        (npy((-1, 32, 32, 3)), "no array is like this"),
        (npy((1, 2, 2, 3), bytes(11)), "it has 11 bytes of numbers"),
        (b"\x93NUMPY\x03\x00" + bytes(100), r"npy version \(3, 0\)"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(
    content, message, tmp_path
):
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(InputError, match=message):
        create(tmp_path)


def test_a_bomb_is_refused_by_its_declared_size(tmp_path):
    images = np.zeros((3000, 32, 32, 3), np.uint8)
    path = save(tmp_path / "train.npz", images=images) / "train.npz"
    assert path.stat().st_size < 20_000
    assert len(create(tmp_path)) == 3000
    with pytest.raises(InputError, match=r"at most 9000000 bytes.*max_gigabytes"):
        create(tmp_path, max_gigabytes=0.009)


def test_what_is_no_npz_is_refused(tmp_path, arrays):
    with pytest.raises(InputError, match=r"train.npz does not exist"):
        create(tmp_path)
    (tmp_path / "train.npz").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match=r"no \.npz that can be read"):
        create(tmp_path)
    content = io.BytesIO()
    np.savez(content, **arrays)
    (tmp_path / "train.npz").write_bytes(content.getvalue()[:400])
    with pytest.raises(InputError, match=r"no \.npz that can be read"):
        create(tmp_path)


def test_classes_of_images_without_labels_are_refused_in_words(tmp_path):
    path = save(tmp_path / "train.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    data = {"name": "npz", "data_dir": str(path), "image_size": 8, "channels": 1}
    config = with_sections(load_config_file(str(DIGITS)), data=data)
    wanted = r"must be 0 \(unconditional\): 'npz' has no classes; got 10\."
    with pytest.raises(InputError, match=wanted):
        open_dataset(create_experiment(config), "train")
