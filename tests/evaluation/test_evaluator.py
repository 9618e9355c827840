"""Scores against a data set: what they are of, and what they are refused for."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.data.loader import read_images
from dig_jax.devices.sharding import create_mesh
from dig_jax.errors import InputError
from dig_jax.evaluation import (
    Evaluator,
    check_evaluation_options,
    format_record,
    score_names,
)
from dig_jax.evaluation.features import FeatureScorer
from dig_jax.experiment import create_experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics.networks.inception_weights import random_weights, write_weights
from dig_jax.options import MeshOptions

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
DRAWN = {"seed": 0, "labels": "balanced"}


def create_digits(data_dir, *, num_classes=10, **evaluation):
    config = load_config_file(str(DIGITS))
    config.data.data_dir = str(data_dir)
    config.backbone.num_classes = num_classes
    with config.evaluation.unlocked():
        config.evaluation.update(evaluation)
    return create_experiment(config)


def create_npz(folder, seed=0, count=30, splits=("train", "test"), **evaluation):
    """An experiment on noise in 8x8 RGB, labels 0 to 2."""
    folder.mkdir(exist_ok=True)
    for i, split in enumerate(splits):
        images, labels = noise(seed + i, count)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    config = load_config_file(str(DIGITS))
    with config.unlocked():
        config.data = dict(name="npz", image_size=8, channels=3, data_dir=str(folder))
        config.evaluation = dict(metrics=(), **evaluation)
    config.backbone.num_classes = 3
    return create_experiment(config)


def noise(seed, count, size=8):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 3).astype(np.int32)
    images = (
        rng.integers(0, 156, (count, size, size, 3)) + 50 * labels[:, None, None, None]
    )
    return LabelledImages(images.astype(np.uint8), labels)


def create_evaluator(experiment):
    options = check_evaluation_options(experiment.evaluation)
    return Evaluator(experiment, options, create_mesh(MeshOptions(data=1)))


@pytest.fixture(scope="module")
def digits(data_dir):
    """An evaluator with all that it makes of the digits."""
    evaluator = create_evaluator(create_digits(data_dir))
    evaluator.check(100)
    return evaluator


def test_training_images_score_as_the_data_set_itself(data_dir, digits):
    train = read_images(open_dataset(create_digits(data_dir), "train"))
    scores = digits.score(train, DRAWN)["scores"]
    # A digit with an exact double elsewhere is still nearer to it than to any other.
    assert scores["copied_share"]["value"] == 1
    assert scores["copied_share"]["real"] < 0.5
    assert scores["frechet_pixels"]["value"] == pytest.approx(0, abs=1e-4)
    assert scores["fd_digits1500"]["value"] == pytest.approx(0, abs=1e-4)
    # As many of them as there are test images, which are what that compares with.
    few = scores["fd_digits297"]
    assert 0 < few["value"] < few["real"]
    assert (few["num_images"], few["num_real"]) == (297, 297)
    assert "real" not in scores["fd_digits1500"]
    assert scores["label_accuracy_digits1500"]["num_real"] == 297


def test_test_images_score_what_stands_beside_every_score(data_dir, digits):
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    scores = digits.score(test, DRAWN)["scores"]
    for name, score in scores.items():
        assert score["real"] == pytest.approx(score["value"]), name
        assert score["num_real"] == score["num_images"] == 297


def test_distances_of_pixels_stand_beside_as_many_real_images(data_dir):
    evaluator = create_evaluator(create_digits(data_dir, features="none"))
    train = read_images(open_dataset(create_digits(data_dir), "train"))
    real = {}
    for count in (100, 297, 500):
        drawn = LabelledImages(train.images[:count], train.labels[:count])
        scores = evaluator.score(drawn, DRAWN)["scores"]
        assert scores["frechet_pixels"]["num_real"] == min(count, 297)
        assert scores["label_accuracy"]["num_real"] == 297
        real[count] = scores["frechet_pixels"]["real"]
    # Fewer images are further from the whole: by about three times as much.
    assert 2 * real[297] < real[100] < 4 * real[297]
    assert real[500] == real[297]


def test_the_floor_is_of_as_many_images_as_are_held(data_dir):
    evaluator = create_evaluator(create_digits(data_dir, num_held=200))
    train = read_images(open_dataset(create_digits(data_dir), "train"))
    drawn = LabelledImages(train.images[:500], train.labels[:500])
    scores = evaluator.score(drawn, DRAWN)["scores"]
    for name in ("fd_digits200", "kid_digits200", "precision_digits200"):
        assert scores[name]["num_real"] == scores[name]["num_images"] == 200
    assert "real" not in scores["fd_digits500"]
    # Fewer images are further from the whole.
    assert scores["fd_digits500"]["value"] < scores["fd_digits200"]["value"]


def test_a_record_says_what_it_depends_on(data_dir, digits):
    source = open_dataset(create_digits(data_dir), "train")
    images = LabelledImages(source[0]["image"][None].repeat(20, 0), np.zeros(20, int))
    noisy = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
    record = digits.score(images._replace(images=noisy), DRAWN)
    assert record["samples"] == DRAWN
    assert record["real"] == {
        "dataset": "digits",
        "split": "train",
        "transform": "none",
        "fingerprint": source.fingerprint,
        "num_images": 1500,
        "num_damaged": 0,
    }
    features = record["features"]
    assert features["network"] == "small_classifier of digits"
    assert features["statistics"] == digits.features.reference.sha256
    assert features["statistics_keys"] == ["mu", "sigma", "features"]
    assert features["statistics_images"] == 1500
    assert {"jax", "jaxlib", "python"} <= record["versions"].keys()


@pytest.mark.parametrize("why", ["unconditional", "file without labels"])
def test_labels_that_nobody_asked_for_are_not_read(data_dir, digits, why):
    evaluator, samples = digits, {"labels": "none"}
    if why == "unconditional":
        evaluator = create_evaluator(create_digits(data_dir, num_classes=0))
        samples = DRAWN
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    names = evaluator.score(test, samples)["scores"]
    assert not [name for name in names if name.startswith("label_accuracy")]
    assert {"frechet_pixels", "fd_digits297"} <= names.keys()


def test_statistics_are_made_once_and_the_same_each_time(data_dir, digits, monkeypatch):
    first, kept = digits.features.reference, digits.features.kept_file("train")
    written = kept.read_bytes()
    again = create_evaluator(create_digits(data_dir)).features
    assert again is not None
    with monkeypatch.context() as patch:
        patch.setattr(FeatureScorer, "_summarize_split", None)
        assert again.reference.sha256 == first.sha256
    damaged = bytearray(written)
    damaged[len(damaged) // 2] ^= 1
    kept.write_bytes(bytes(damaged))
    anew = create_evaluator(create_digits(data_dir)).features
    assert anew is not None
    assert anew.reference.sha256 == first.sha256
    assert kept.read_bytes() == written


def test_the_statistics_are_of_every_image_once(data_dir, digits):
    """Unflipped, no noise added, the last partial batch too: NumPy's own moments."""
    extractor = digits.features.extractor
    images = read_images(open_dataset(create_digits(data_dir), "train")).images
    pool = extractor.apply(extractor.params, jnp.asarray(images)).pool
    features = np.asarray(pool, np.float64)
    moments = digits.features.reference.summary.moments
    assert moments.count == 1500
    # Features are float32 and round by the shape of their batch.
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), atol=1e-5)
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(moments.cov, expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_other_images_are_refused_unless_allowed(
    data_dir, digits, tmp_path
):
    file = tmp_path / "test.npz"
    digits.features.statistics("test", file)
    refused = create_evaluator(create_digits(data_dir, reference=str(file)))
    with pytest.raises(InputError, match="split test instead of train"):
        refused.check(100)
    allowed = create_evaluator(
        create_digits(data_dir, reference=str(file), allow_other_reference=True)
    )
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    record = allowed.score(test, DRAWN)
    assert "split test instead of train" in record["notes"][0]
    assert record["scores"]["fd_digits297"]["value"] == pytest.approx(0, abs=1e-4)


def test_fewer_images_than_features_are_refused_unless_allowed(data_dir, digits):
    with pytest.raises(InputError, match=r"more images than features, got 8\. Draw"):
        digits.check(8)
    allowed = create_evaluator(create_digits(data_dir, allow_few_images=True))
    allowed.check(8)
    few = read_images(open_dataset(create_digits(data_dir), "test"))
    record = allowed.score(LabelledImages(few.images[:8], few.labels[:8]), DRAWN)
    assert "biased upwards" in record["notes"][0]


def test_features_may_be_left_out(data_dir):
    evaluator = create_evaluator(create_digits(data_dir, features="none"))
    evaluator.check(2)
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    record = evaluator.score(test, DRAWN)
    assert record["features"] is None
    assert set(record["scores"]) == {"copied_share", "frechet_pixels", "label_accuracy"}


def test_grey_images_in_rgb_are_the_grey_ones(data_dir, digits):
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    rgb = test._replace(images=np.repeat(test.images, 3, axis=3))
    assert digits.score(rgb, DRAWN)["scores"] == digits.score(test, DRAWN)["scores"]


def test_images_of_another_shape_are_refused(digits):
    with pytest.raises(InputError, match=r"\(8, 8, 1\).*digits.*got \(8, 8, 3\)"):
        digits.score(noise(0, 20), DRAWN)


def test_a_data_set_without_test_images_has_no_floor(tmp_path):
    experiment = create_npz(tmp_path / "data", splits=("train",))
    evaluator = create_evaluator(experiment)
    record = evaluator.score(noise(5, 30), DRAWN)
    assert record["notes"] == ["no test images: no noise floor"]
    assert all("real" not in score for score in record["scores"].values())
    assert "fd_npz30" in record["scores"]


def test_unlabelled_images_without_inception_have_no_features(tmp_path):
    experiment = create_npz(tmp_path / "data")
    for file in (tmp_path / "data").glob("*.npz"):
        np.savez(file, images=noise(0, 30).images)
    config = experiment.config.copy_and_resolve_references()
    config.backbone.num_classes = 0
    config.evaluation.metrics = ("frechet_pixels",)
    evaluator = create_evaluator(create_experiment(config))
    assert evaluator.features is None
    assert set(evaluator.score(noise(1, 30), DRAWN)["scores"]) == {"frechet_pixels"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"metrics": ("fid",)}, r"'fid'.*Available: copies, .*evaluation\.features"),
        ({"features": "inception"}, r"needs the network's weights.*metrics\.convert"),
        ({"inception_weights": "no/such"}, r"no no/such\. Download .*metrics\.convert"),
        ({"reference": "no/such.npz"}, r"no no/such\.npz\. Make some with --mode=stat"),
        ({"features": "vgg"}, r"features.*'inception'"),
        ({"num_held": -1}, r"num_held"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_way_out(data_dir, section, said):
    with pytest.raises(InputError, match=said):
        check_evaluation_options(create_digits(data_dir, **section).evaluation)


def test_other_projects_statistics_give_the_same_distance(data_dir, digits, tmp_path):
    test = read_images(open_dataset(create_digits(data_dir), "test"))
    ours = digits.score(test, DRAWN)["scores"]["fd_digits297"]["value"]
    moments = digits.features.reference.summary.moments
    # pytorch-fid's.
    np.savez(tmp_path / "statistics.npz", mu=moments.mean, sigma=moments.cov)
    # The ADM evaluator's images, whose features are computed.
    train = read_images(open_dataset(create_digits(data_dir), "train")).images
    np.savez(tmp_path / "images.npz", arr_0=train)
    for name, keys in (("statistics", ["mu", "sigma"]), ("images", ["arr_0"])):
        file = str(tmp_path / f"{name}.npz")
        evaluator = create_evaluator(
            create_digits(data_dir, reference=file, allow_other_reference=True)
        )
        record = evaluator.score(test, DRAWN)
        value = record["scores"]["fd_digits297"]["value"]
        assert value == pytest.approx(ours, rel=1e-12)
        assert record["features"]["statistics_keys"] == keys
        # Of what, the file does not say, and neither does the record.
        assert record["real"]["dataset"] == record["real"]["split"] == "unknown"
        assert record["real"]["pixels_of"] == "digits"
        assert "images of unknown, split unknown" in format_record(record)
        unknown = name == "statistics"
        assert ("of an unknown network" in format_record(record)) == unknown
        assert len(record["features"]["statistics"]) == 64
        # Which scores there will be is known before: of moments alone, no KID.
        options = create_digits(data_dir, reference=file).evaluation
        source = evaluator.real.source("train")
        known = score_names(options, source, num_images=297, num_test=297)
        assert set(known) == record["scores"].keys()
        assert ("kid_digits297" in known) == (name == "images")


def test_weights_that_are_not_finite_are_refused(data_dir, tmp_path):
    weights = random_weights(0)
    weights["fc.weight"][0, 0] = np.nan
    write_weights(tmp_path / "nan.safetensors", weights, {})
    file = str(tmp_path / "nan.safetensors")
    named = create_digits(data_dir, features="inception", inception_weights=file)
    with pytest.raises(InputError, match=r"not finite in fc\.weight"):
        create_evaluator(named).check(3000)


def test_a_cache_that_cannot_be_written_is_said(tmp_path, data_dir, digits):
    (tmp_path / "file").write_text("no folder")
    evaluator = create_evaluator(
        create_digits(data_dir, cache_dir=str(tmp_path / "file"))
    )
    with pytest.raises(InputError, match="cannot be written"):
        evaluator.check(100)
    shutil.rmtree(tmp_path, ignore_errors=True)
