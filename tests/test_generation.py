"""Drawing images and scoring them: what is drawn depends on the seed alone."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.data.loader import read_all
from dig_jax.errors import InputError, NonFiniteError
from dig_jax.evaluation import (
    GROUP_SIZE,
    SampleOptions,
    Sampler,
    choose_labels,
    create_evaluation_options,
    describe_samples,
    read_samples,
    sample_grid,
    save_samples,
    score_samples,
)
from dig_jax.experiment import create_experiment, open_dataset
from dig_jax.images import image_grid
from dig_jax.interfaces import Backbone
from dig_jax.sharding import MeshOptions, create_mesh

DIGITS = Path(__file__).parents[1] / "configs" / "digits.py"


def create_mlp_backbone(num_classes):
    """The smallest network that multiplies matrices and looks at its label."""
    width = 37  # Odd, so that blocks of a matrix product have ragged ends.

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "into": jax.random.normal(keys[0], (64, width)) / 8,
            "out": jax.random.normal(keys[1], (width, 64)) / 6,
            "label": jax.random.normal(keys[2], (max(num_classes, 1), width)),
        }

    def apply(params, x, t, label):
        h = x.reshape(len(x), -1) @ params["into"] + t[:, None]
        h = h if label is None else h + params["label"][label]
        return (jax.nn.gelu(h) @ params["out"]).reshape(x.shape)

    def features(params, x, t, label):
        raise AssertionError("not called")

    return Backbone(init, apply, features, (8, 8, 1), num_classes, None)


def create_mlp_experiment(num_classes=10):
    experiment = create_experiment(load_config_file(str(DIGITS)))
    return experiment._replace(backbone=create_mlp_backbone(num_classes))


def draw(experiment, num_devices=1, **options):
    options = SampleOptions(**{"num_steps": 5, "num_images": 20, **options})
    sampler = Sampler(experiment, options, create_mesh(MeshOptions(num_devices)))
    return sampler.draw(experiment.backbone.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def experiment():
    return create_mlp_experiment()


@pytest.fixture(scope="module")
def images(experiment):
    return draw(experiment)


@pytest.mark.parametrize("rule", ["balanced", 3, "3", (1, 2), "1,2", "(4, 0, 7)", [5]])
def test_labels_of_fewer_images_are_a_prefix(rule):
    rule = tuple(rule) if isinstance(rule, list) else rule
    all_labels = choose_labels(rule, 50, 10)
    assert all_labels is not None
    for num_images in (1, 2, 13, 50):
        np.testing.assert_array_equal(
            choose_labels(rule, num_images, 10), all_labels[:num_images]
        )


@pytest.mark.parametrize(
    ("rule", "cycle"),
    [
        ("balanced", range(10)),
        (3, [3]),
        ("3", [3]),
        ((1, 9, 1), [1, 9, 1]),
        ("1,9,1", [1, 9, 1]),
        ("(4, 0)", [4, 0]),
        ("[4, 0]", [4, 0]),
        ("4,", [4]),
        ("(4,)", [4]),
    ],
)
def test_labels_go_round(rule, cycle):
    labels = choose_labels(rule, 25, 10)
    assert labels is not None
    assert labels.dtype == np.int32
    assert labels.tolist() == [list(cycle)[i % len(cycle)] for i in range(25)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (10, "0 to 9, got 10"),
        (-1, "0 to 9, got -1"),
        ("3,12", "0 to 9, got 12"),
        ((), "got none"),
        ("", "'balanced'.*got ''"),
        ("cat", "'balanced'.*got 'cat'"),
    ],
)
def test_labels_that_do_not_exist_are_refused(rule, said):
    with pytest.raises(InputError, match=said):
        choose_labels(rule, 5, 10)


def test_an_unconditional_backbone_has_no_labels():
    assert choose_labels("balanced", 5, 0) is None
    with pytest.raises(InputError, match=r"unconditional.*labels=3"):
        choose_labels(3, 5, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50])
def test_images_do_not_depend_on_the_batch(experiment, images, batch_size):
    np.testing.assert_array_equal(draw(experiment, batch_size=batch_size), images)


def test_images_do_not_depend_on_how_many_are_drawn(experiment, images):
    for num_images in (1, GROUP_SIZE["cpu"] + 1):
        fewer = draw(experiment, num_images=num_images)
        np.testing.assert_array_equal(fewer, images[:num_images])


def test_images_do_not_depend_on_the_number_of_devices(images, tmp_path):
    path = tmp_path / "images.npy"
    script = (
        "import sys, numpy; sys.path.insert(0, sys.argv[1])\n"
        "import test_evaluation as t\n"
        "images = t.draw(t.create_mlp_experiment(), num_devices=4, batch_size=64)\n"
        "numpy.save(sys.argv[2], images)"
    )
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", script, here, path], check=True, env=environment
    )
    np.testing.assert_array_equal(np.load(path), images)


def test_every_image_of_every_seed_is_another(experiment, images):
    both = np.concatenate([images, draw(experiment, seed=1)])
    assert len(np.unique(both, axis=0)) == len(both)


def test_the_label_rule_reaches_the_network(experiment, images):
    # Image 3 has label 3 in turn; others have another label and the same noise.
    threes = draw(experiment, labels=3)
    same = (threes == images).all(axis=(1, 2, 3))
    assert same.tolist() == [index % 10 == 3 for index in range(20)]


def test_an_unconditional_backbone_draws():
    images = draw(create_mlp_experiment(num_classes=0), num_images=3)
    assert images.shape == (3, 8, 8, 1)
    assert len(np.unique(images, axis=0)) == 3


def test_an_output_that_is_not_finite_is_an_error(experiment):
    options = SampleOptions(num_steps=2, num_images=1)
    sampler = Sampler(experiment, options, create_mesh(MeshOptions(1)))
    params = experiment.backbone.init(jax.random.key(0))
    with pytest.raises(NonFiniteError):
        sampler.draw(jax.tree.map(lambda p: p * jnp.nan, params))


def test_progress_counts_the_images(experiment):
    counts = []
    options = SampleOptions(num_steps=1, num_images=40, batch_size=16)
    sampler = Sampler(experiment, options, create_mesh(MeshOptions(1)))
    sampler.draw(experiment.backbone.init(jax.random.key(0)), counts.append)
    assert counts == [16, 32, 40]


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


def test_a_grid_has_one_row_a_class(images):
    labels = choose_labels("balanced", 20, 10)
    by_class = np.concatenate([images[labels == label] for label in range(10)])
    np.testing.assert_array_equal(
        sample_grid(images, labels), image_grid(by_class, columns=2, scale=8)
    )


def test_a_grid_of_ragged_classes_keeps_the_order(images):
    labels = np.array([0] * 5 + [1] * 15, np.int32)
    expected = image_grid(images, columns=10, scale=8)
    np.testing.assert_array_equal(sample_grid(images, labels), expected)
    np.testing.assert_array_equal(sample_grid(images, None), expected)


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
