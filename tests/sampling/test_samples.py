"""Keeping images with where they come from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.options import SampleOptions
from dig_jax.sampling.label_rules import choose_labels
from dig_jax.sampling.samples import (
    describe_samples,
    read_samples,
    save_adm_batch,
    save_samples,
)

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"


@pytest.fixture(scope="module")
def experiment():
    return create_experiment(load_config_file(str(DIGITS)))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 8, 8, 1), np.uint8)


def test_samples_are_read_as_they_were_saved(experiment, images, tmp_path):
    path = tmp_path / "deep" / "samples.npz"
    labels = choose_labels("balanced", 20, 10)
    provenance = describe_samples(experiment, SampleOptions(num_images=20), 7)
    save_samples(path, images, labels, provenance)
    read, read_provenance = read_samples(path)
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    assert [file.name for file in path.parent.iterdir()] == ["samples.npz"]
    assert read_provenance == provenance
    assert provenance["checkpoint_step"] == 7
    assert provenance["function_evaluations"] == 1000


def test_images_without_labels_are_saved_with_zeros(images, tmp_path):
    save_samples(tmp_path / "samples.npz", images, None, {})
    np.testing.assert_array_equal(read_samples(tmp_path / "samples.npz")[0].labels, 0)


@pytest.mark.parametrize(
    "kind", ["missing", "text", "empty", "cut", "other npz", "pickle"]
)
def test_what_is_no_samples_file_is_refused(tmp_path, kind):
    path = tmp_path / "samples.npz"
    if kind == "text":
        path.write_text("no arrays")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        np.savez(path, images=np.zeros(3))
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "other npz":
        np.savez(path, images=np.zeros(3))
    elif kind == "pickle":
        # An object array runs code when it is read.
        pickled = np.array([{"a": 1}], dtype=object)
        np.savez(path, images=pickled, labels=pickled, provenance=pickled)
    with pytest.raises(InputError, match=r"samples\.npz"):
        read_samples(path)


def test_an_adm_batch_is_rgb_and_is_read_back(images, tmp_path):
    labels = np.arange(20, dtype=np.int32)
    save_adm_batch(tmp_path / "adm.npz", images, labels)
    with np.load(tmp_path / "adm.npz") as arrays:
        assert arrays["arr_0"].shape == (20, 8, 8, 3)
        np.testing.assert_array_equal(arrays["arr_1"], labels)
    read, provenance = read_samples(tmp_path / "adm.npz")
    np.testing.assert_array_equal(read.images, np.repeat(images, 3, axis=3))
    np.testing.assert_array_equal(read.labels, labels)
    assert len(provenance["samples_digest"]) == 64


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 4, 4, 3), np.float32), r"uint8.*got float32 from 0 to 0 in"),
        (np.full((3, 4, 4, 3), -0.5), r"got float64 from -0\.5 to -0\.5"),
        (np.full((3, 4, 4, 3), np.nan, np.float32), r"144 of 144 not finite"),
        (
            np.zeros((3, 4, 4, 2), np.uint8),
            r"one channel or three, got arr_0 uint8 \(3, 4, 4, 2\)",
        ),
        (np.zeros((0, 4, 4, 3), np.uint8), r"no images, got arr_0 uint8 \(0, 4"),
        (np.array([]), r"there are no images, got arr_0 float64 \(0,\)"),
        (
            np.zeros((4, 4, 3), np.uint8),
            r"\[image, row, col, rgb\].*got arr_0 uint8 \(4, 4, 3\)",
        ),
    ],
)
def test_images_that_are_no_pixels_are_refused(tmp_path, array, said):
    np.savez(tmp_path / "adm.npz", arr_0=array)
    with pytest.raises(InputError, match=said):
        read_samples(tmp_path / "adm.npz")


def test_labels_that_do_not_fit_are_refused(images, tmp_path):
    np.savez(tmp_path / "adm.npz", arr_0=images, arr_1=np.zeros(19, np.int32))
    with pytest.raises(InputError, match=r"\(19,\) for 20 images"):
        read_samples(tmp_path / "adm.npz")


def test_what_changes_no_image_is_not_in_its_provenance(experiment):
    options = SampleOptions(num_images=20)
    described = describe_samples(experiment, options, 7)
    more = SampleOptions(num_images=50, batch_size=3)
    assert describe_samples(experiment, more, 7) == described
    config = experiment.config.copy_and_resolve_references()
    config.evaluation.metrics, config.mesh.data = (), 1
    assert describe_samples(replace(experiment, config=config), options, 7) == described


@pytest.mark.parametrize(
    "change", ["seed", "step", "parameters", "solver steps", "network"]
)
def test_what_changes_images_changes_their_provenance(experiment, change):
    options, step, digest = SampleOptions(), 7, "aa"
    described = describe_samples(experiment, options, step, parameters_digest=digest)
    if change == "seed":
        options = SampleOptions(seed=1)
    elif change == "step":
        step = 8
    elif change == "parameters":
        digest = "ab"
    elif change == "solver steps":
        options = SampleOptions(num_steps=999)
    else:
        config = experiment.config.copy_and_resolve_references()
        config.backbone.width = 48
        experiment = replace(experiment, config=config)
    other = describe_samples(experiment, options, step, parameters_digest=digest)
    assert other != described
