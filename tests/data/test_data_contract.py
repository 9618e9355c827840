"""What every entry of DATASETS promises, as far as it can be made here."""

import inspect
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dig_jax.data import DATASETS, create_dataset
from dig_jax.data.labels import label_counts
from dig_jax.data.latents import METADATA, LatentRecord, record_shape
from dig_jax.data.prepared import prepared_path
from dig_jax.errors import InputError
from dig_jax.prepare.preparation import prepare
from dig_jax.prepare.shards import ImageRule
from dig_jax.prepare.splits import ArraySplit, RawDataset

MAKEABLE = sorted(DATASETS)
# Those that need no files, or have files in a layout of their own.
UNPREPARED = ("digits", "npz", "synthetic")
# What is known of some that are prepared, beside what their factories say: the number
# of classes and the splits. Others get ten classes, to train and to test.
STAND_INS = {
    "celeba64": {"num_classes": 0},
    "folder": {"num_classes": 7},
    "imagenet64": {"num_classes": 1000, "splits": ("train", "validation")},
    "svhn": {"splits": ("train", "test", "extra")},
}
# Whether a mirrored image is one of its class, where that is known.
MAY_FLIP = {
    "celeba64": True,
    "cifar10": True,
    "digits": False,
    "fashion_mnist": True,
    "folder": True,
    "imagenet64": True,
    "kmnist": False,
    "mnist": False,
    "latents": True,
    "npz": True,
    "prepared": False,
    "svhn": False,
    "synthetic": True,
}
OF_LATENTS = LatentRecord(
    encoder="0" * 16,
    scale=0.18215,
    moments="float16",
    pixels="",
    name="folder",
    pixels_transform="none",
    fingerprints={},
    may_flip=True,
)
LENGTH = 100


def write_stand_ins(data_dir):
    """Random images in the place and layout of every data set that has files."""
    for name in sorted({*DATASETS} - {*UNPREPARED}):
        known = STAND_INS.get(name, {})
        num_classes = known.get("num_classes", 10)
        splits = known.get("splits", ("train", "test"))
        size, transform = default(name, "image_size"), default_transform(name)
        variant = "" if transform == "none" else transform
        if name == "folder":
            variant = f"{transform}_{size}x{size}x3"
        shape, metadata = (size, size, default(name, "channels")), {}
        if name == "latents":
            variant = f"{size}x{size}x4"
            shape = record_shape((size, size, 4), "float16")
            metadata = {METADATA: OF_LATENTS._asdict()}
        if name == "prepared":
            metadata = {"may_flip": False}
        raw = RawDataset(
            {
                split: ArraySplit(split, *random_split(split, num_classes, *shape[1:]))
                for split in splits
            },
            tuple(f"class {label}" for label in range(num_classes)),
            encoded=False,
            source="random images",
            metadata=metadata,
        )
        path = Path(prepared_path(name, data_dir, variant))
        rule = ImageRule(shape, transform, num_classes)
        prepare(raw, path, rule, advance=lambda count: None)
    for split in ("train", "test"):
        images, labels = random_split(split, 5, 16)
        np.savez(f"{data_dir}/{split}.npz", images=images, labels=labels)


def default(name, option):
    """What a factory's option is by default."""
    return inspect.signature(DATASETS[name]).parameters[option].default


def default_transform(name):
    """How a data set's images came to be, unless another way is asked for."""
    has_choice = "transform" in inspect.signature(DATASETS[name]).parameters
    return default(name, "transform") if has_choice else "none"


def random_split(split, num_classes, size, channels=3):
    rng = np.random.default_rng([len(split), size])
    images = rng.integers(0, 256, (LENGTH, size, size, channels), dtype=np.uint8)
    return images, np.arange(LENGTH) % max(1, num_classes)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    write_stand_ins(folder)
    return folder


@pytest.fixture(scope="module")
def create(data_dir):
    def create(name, **options) -> Any:
        if name == "synthetic":
            options.setdefault("length", LENGTH)
        else:
            options.setdefault("data_dir", data_dir)
        if name == "prepared":
            options.setdefault("called", name)
        return create_dataset(name, **options)

    return create


@pytest.mark.parametrize("name", MAKEABLE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_records_have_the_shape_dtype_and_labels_that_the_source_states(
    create, name, split
):
    source = create(name, split=split)
    if name == "imagenet64" and split == "test":
        split = "validation"  # its own test labels are not public
    assert (source.name, source.split) == (name, split)
    assert len(source.class_names) == source.num_classes
    for index in range(0, len(source), 7):
        record = source[index]
        assert record["image"].shape == source.image_shape
        assert record["image"].dtype == np.uint8
        assert record["label"].dtype == np.int32
        assert np.shape(record["label"]) == ()
        assert 0 <= record["label"] < max(1, source.num_classes)


@pytest.mark.parametrize("name", MAKEABLE)
def test_every_source_says_how_its_images_came_to_be_and_may_be_turned(create, name):
    source = create(name)
    assert source.transform == default_transform(name)
    assert source.may_flip in (True, False)
    assert source.may_flip == create(name, split="test").may_flip
    assert source.may_flip == MAY_FLIP.get(name, source.may_flip)


@pytest.mark.parametrize("name", MAKEABLE)
def test_reads_are_deterministic_in_any_order_and_after_pickling(create, name):
    source, again = create(name), create(name)
    copy = pickle.loads(pickle.dumps(source))
    for index in (5, 0, 99, 5):
        for other in (again, copy):
            np.testing.assert_array_equal(source[index]["image"], other[index]["image"])
            assert source[index]["label"] == other[index]["label"]


@pytest.mark.parametrize("name", MAKEABLE)
def test_labels_are_counted_as_they_are_read(create, name):
    source = create(name)
    counts = np.zeros(source.num_classes, int)
    for index in range(len(source)):
        if source.num_classes:
            counts[source[index]["label"]] += 1
    np.testing.assert_array_equal(label_counts(source), counts)


@pytest.mark.parametrize("name", MAKEABLE)
def test_an_index_outside_is_refused(create, name):
    source = create(name)
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


@pytest.mark.parametrize("name", MAKEABLE)
def test_fingerprint_is_the_datas_and_not_the_folders(create, name, data_dir, tmp_path):
    fingerprint = create(name).fingerprint
    assert len(fingerprint) == 16
    int(fingerprint, 16)
    assert create(name).fingerprint == fingerprint
    assert create(name, split="test").fingerprint != fingerprint
    if name != "synthetic":
        shutil.copytree(data_dir, tmp_path / "copy")
        copy = str(tmp_path / "copy")
        assert create(name, data_dir=copy).fingerprint == fingerprint


def test_part_of_a_split_has_a_fingerprint_of_its_own(create):
    splits = ("train", "train[:750]", "train[750:]", "train+test")
    fingerprints = {create("digits", split=split).fingerprint for split in splits}
    assert len(fingerprints) == len(splits)


def test_fingerprint_of_synthetic_images_follows_every_option(create):
    variants = [
        {},
        {"image_size": 16},
        {"image_size": (32, 16)},
        {"channels": 1},
        {"num_classes": 5},
        {"length": 99},
        {"seed": 1},
    ]
    fingerprints = {create("synthetic", **v).fingerprint for v in variants}
    assert len(fingerprints) == len(variants)


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(InputError, match=f"'cifar'.* {', '.join(sorted(DATASETS))}"):
        create_dataset("cifar")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_factory_takes_keywords_alone_and_needs_none(name):
    parameters = inspect.signature(DATASETS[name]).parameters
    assert parameters["split"].default == "train"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert all(p.default is not p.empty for p in parameters.values())
