"""Scoring images, and keeping them with where they come from."""

from pathlib import Path

import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.data.loader import read_all
from dig_jax.errors import InputError
from dig_jax.evaluation import (
    create_evaluation_options,
    describe_samples,
    read_samples,
    save_samples,
    score_samples,
)
from dig_jax.experiment import create_experiment, open_dataset
from dig_jax.generation import SampleOptions, choose_labels

DIGITS = Path(__file__).parents[1] / "configs" / "digits.py"


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


def test_an_unknown_metric_is_refused_with_the_choices(experiment):
    config = experiment.config.copy_and_resolve_references()
    config.evaluation.metrics = ("fid",)
    with pytest.raises(InputError, match=r"'fid'.*Available: copies, "):
        create_evaluation_options(experiment._replace(config=config))


def test_training_images_score_as_copies_of_themselves(tmp_path):
    config = load_config_file(str(DIGITS))
    config.data.data_dir = str(tmp_path)
    experiment = create_experiment(config)
    train = read_all(open_dataset(experiment, "train"))
    record = score_samples(experiment, train, {"checkpoint_step": 3})
    # A digit with an exact double elsewhere is still nearer to it than to any other.
    assert record["copied_share"] == 1
    assert record["copied_share_test"] < 0.5
    # float64 square roots of matrices lose half the digits.
    assert record["frechet_pixels"] == pytest.approx(0, abs=1e-4)
    assert record["frechet_pixels"] < record["frechet_pixels_test"]
    assert record["label_accuracy"] > 0.99
    assert (record["num_train"], record["num_test"]) == (1500, 297)
    assert record["checkpoint_step"] == 3


def test_label_accuracy_is_left_out_for_an_unconditional_backbone(tmp_path):
    config = load_config_file(str(DIGITS))
    config.data.data_dir = str(tmp_path)
    config.backbone.num_classes = 0
    experiment = create_experiment(config)
    test = read_all(open_dataset(experiment, "test"))
    record = score_samples(experiment, test, {})
    assert "label_accuracy" not in record
    assert "frechet_pixels" in record
