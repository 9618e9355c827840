"""What every entry of DATASETS promises, as far as it can be made here."""

import inspect
import pickle

import numpy as np
import pytest

from dig_jax.data import DATASETS, create_dataset
from dig_jax.errors import InputError

MAKEABLE = ("digits", "synthetic")


@pytest.fixture(scope="module")
def create(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("data"))

    def create(name, **options):
        if name == "synthetic":
            options.setdefault("length", 100)
        else:
            options.setdefault("data_dir", data_dir)
        return create_dataset(name, **options)

    return create


@pytest.mark.parametrize("name", MAKEABLE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_records_have_the_shape_dtype_and_labels_that_the_source_states(
    create, name, split
):
    source = create(name, split=split)
    assert (source.name, source.split) == (name, split)
    assert len(source.class_names) == source.num_classes
    for index in range(0, len(source), 7):
        record = source[index]
        assert record["image"].shape == source.image_shape
        assert record["image"].dtype == np.uint8
        assert record["label"].dtype == np.int32
        assert np.shape(record["label"]) == ()
        assert 0 <= record["label"] < source.num_classes


@pytest.mark.parametrize("name", MAKEABLE)
def test_reads_are_deterministic_in_any_order_and_after_pickling(create, name):
    source, again = create(name), create(name)
    copy = pickle.loads(pickle.dumps(source))
    for index in (5, 0, 99, 5):
        for other in (again, copy):
            np.testing.assert_array_equal(source[index]["image"], other[index]["image"])
            assert source[index]["label"] == other[index]["label"]


@pytest.mark.parametrize("name", MAKEABLE)
def test_an_index_outside_is_refused(create, name):
    source = create(name)
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


@pytest.mark.parametrize("name", MAKEABLE)
def test_fingerprint_is_the_datas_and_not_the_folders(create, name, tmp_path):
    fingerprint = create(name).fingerprint
    assert len(fingerprint) == 16
    int(fingerprint, 16)
    assert create(name).fingerprint == fingerprint
    assert create(name, split="test").fingerprint != fingerprint
    if name != "synthetic":
        assert create(name, data_dir=str(tmp_path)).fingerprint == fingerprint


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
    with pytest.raises(InputError, match=r"'cifar'.* cifar10, digits, imagenet64"):
        create_dataset("cifar")


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_factory_takes_keywords_alone_and_needs_none(name):
    parameters = inspect.signature(DATASETS[name]).parameters
    assert parameters["split"].default == "train"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert all(p.default is not p.empty for p in parameters.values())
