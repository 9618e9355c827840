"""The whole way, as a user goes it: archive, prepare, train, statistics, FID."""

from pathlib import Path

import numpy as np
import pytest
from official_archives import cifar10_files, write_tar

from dig_jax import main as command_line
from dig_jax.errors import EXIT_DONE
from dig_jax.evaluation import read_records
from dig_jax.metrics.networks.inception_weights import random_weights, write_weights
from dig_jax.metrics.reference import read_reference
from dig_jax.prepare import command as prepare

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_cond.py"
TINY = [
    f"--config={CONFIG}",
    "--config.backbone.width=16",
    "--config.backbone.depth=2",
    "--config.backbone.hops=1",
    "--config.training.num_steps=2",
    "--config.training.batch_size=8",
    "--config.training.samples_per_class=1",
    "--config.training.diversity_every=0",
    "--config.sample.num_steps=2",
    "--config.sample.num_images=8",
    "--config.sample.labels=training",
    "--config.mesh.data=1",
]


@pytest.fixture(scope="module")
def run_of_archive(tmp_path_factory):
    """A run on a CIFAR-10 archive in the official format, scored by Inception."""
    folder = tmp_path_factory.mktemp("whole_way")
    files, _ = cifar10_files(np.random.default_rng(0), per_file=8)
    archive = write_tar(folder / "cifar-10-binary.tar.gz", files, "w:gz")
    data = folder / "data"
    prepared = prepare.main(
        ["cifar10", f"--source={archive}", f"--data_dir={data}", "--num_workers=0"]
    )
    assert prepared == EXIT_DONE
    weights = folder / "inception.safetensors"
    write_weights(weights, random_weights(0), {})
    named = [
        f"--workdir={folder / 'run'}",
        f"--config.data.data_dir={data}",
        f"--config.evaluation.inception_weights={weights}",
        "--config.evaluation.allow_few_images=true",
    ]
    statistics = folder / "train.npz"
    for arguments in (
        [*TINY, *named],
        ["--mode=stats", f"--out={statistics}", *named],
        ["--mode=evaluate", f"--config.evaluation.reference={statistics}", *named],
    ):
        assert command_line.main(arguments) == EXIT_DONE
    return folder


def test_an_archive_comes_to_its_fid(run_of_archive, capsys):
    (record,) = read_records(run_of_archive / "run")
    assert record["real"]["dataset"] == "cifar10"
    assert record["real"]["num_images"] == 40
    assert record["samples"]["labels"] == "training"
    scores = record["scores"]
    names = ("fid8", "sfid8", "kid8", "precision8", "recall8", "inception_score8")
    assert {*names, "frechet_pixels", "copied_share"} == scores.keys()
    for name in names:
        assert np.isfinite(scores[name]["value"])
        assert scores[name]["num_real"] == 8
    assert record["notes"] == [
        "8 images for 2048 features: distances are biased upwards by much"
    ]


def test_the_record_names_the_statistics_that_were_made(run_of_archive):
    (record,) = read_records(run_of_archive / "run")
    features = record["features"]
    assert (features["network"], features["resize"]) == ("inception", "tf1")
    assert features["statistics_images"] == 40
    with np.load(run_of_archive / "train.npz") as arrays:
        assert arrays["mu"].shape == (2048,)
        assert arrays["sigma_s"].shape == (2023, 2023)
        assert features["statistics"] in str(arrays["provenance"])
        assert {"mu", "sigma", "mu_s", "sigma_s", "features"} == set(
            features["statistics_keys"]
        )


def test_the_statistics_say_what_they_are_of(run_of_archive):
    from dig_jax.metrics.extraction import FeatureSpace

    unknown = FeatureSpace("inception", "", "tf1", 2048)
    found = read_reference(run_of_archive / "train.npz", unknown)
    assert (found.images.dataset, found.images.split) == ("cifar10", "train")
    assert found.summary.moments.count == 40
    assert found.summary.space.weights != ""
