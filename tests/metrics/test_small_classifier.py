from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_network import one_device

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics.feature_scores import scores_from_features, summarize_images
from dig_jax.metrics.networks.small_classifier import (
    ClassifierOptions,
    classifier_extractor,
    init_classifier,
    load_or_train_classifier,
    train_classifier,
)

QUICK = ClassifierOptions(
    widths=(8, 16),
    num_features=16,
    num_steps=80,
    num_epochs=0,
    batch_size=64,
    learning_rate=1e-2,
    shift=0,
)


@pytest.fixture(scope="module")
def weights(digits) -> dict[str, np.ndarray]:
    return train_classifier(digits[0], QUICK)


def summarize(weights, images: LabelledImages):
    return summarize_images(
        classifier_extractor(weights, "digits"),
        [images.images],
        len(images.images),
        one_device(),
        labels=images.labels,
    )


def test_it_reads_digits_that_it_has_not_seen(digits, weights):
    # 80 small steps; the defaults reach 98 to 99%.
    accuracy = summarize(weights, digits[1]).label_accuracy
    assert accuracy is not None
    assert accuracy > 0.85


def test_features_of_the_training_images_have_variance_one_on_average(digits, weights):
    cov = summarize(weights, digits[0]).moments.cov
    assert np.trace(cov) / len(cov) == pytest.approx(1, rel=1e-3)


def test_worse_images_score_worse(digits, weights):
    train, test = digits
    reference = summarize(weights, train)
    rng = np.random.default_rng(1)

    def score(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        found = summarize(weights, LabelledImages(images.astype(np.uint8), labels))
        scores = scores_from_features(found, reference)
        return {score.name: score.value for score in scores}

    real = score(test.images, test.labels)
    noise = test.images + rng.normal(0, 60, test.images.shape)
    noisy = score(noise.clip(0, 255), test.labels)
    name = "digits297"
    assert noisy[f"fd_{name}"] > 2 * real[f"fd_{name}"]
    assert noisy[f"kid_{name}"] > real[f"kid_{name}"]
    assert noisy[f"precision_{name}"] < real[f"precision_{name}"]
    only = test.labels == 3
    threes = score(
        np.repeat(test.images[only], 10, 0), np.repeat(test.labels[only], 10)
    )
    recall = next(value for key, value in threes.items() if key.startswith("recall"))
    assert recall < real[f"recall_{name}"] / 2


def test_the_same_seed_gives_the_same_weights_and_another_others(digits):
    options = replace(QUICK, num_steps=3, shift=1)
    first, again = (train_classifier(digits[0], options) for _ in range(2))
    other = train_classifier(digits[0], replace(options, seed=1))
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    assert (other["hidden.kernel"] != first["hidden.kernel"]).all()


def test_a_kept_classifier_is_not_trained_again(digits, tmp_path):
    options, path = replace(QUICK, num_steps=3), tmp_path / "new" / "digits.safetensors"
    steps = []

    def load(fingerprint: str = "a", options: ClassifierOptions = options):
        return load_or_train_classifier(
            path,
            lambda: digits[0],
            num_images=len(digits[0].images),
            dataset="digits",
            fingerprint=fingerprint,
            options=options,
            on_progress=steps.append,
        )

    first = load()
    assert steps == [1, 2, 3]
    assert load().space == first.space
    assert steps == [1, 2, 3]
    # Other images, or another training, are another classifier.
    load(fingerprint="b")
    assert len(steps) == 6
    load(fingerprint="b", options=replace(options, seed=2))
    assert len(steps) == 9
    # So is a damaged one: cut, or with another bit.
    whole = path.read_bytes()
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        load(fingerprint="b", options=replace(options, seed=2))
        assert path.read_bytes() == whole
    assert len(steps) == 15
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_many_images_are_all_gone_through():
    options = ClassifierOptions(num_steps=600, num_epochs=6, batch_size=128)
    assert options.count_steps(1500) == 600
    assert options.count_steps(60_000) * 128 >= 6 * 60_000
    assert (options.count_steps(60_000) - 1) * 128 < 6 * 60_000


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (28, 28, 1), (17, 16, 3), (5, 9, 1), (64, 64, 3)]
)
def test_images_of_any_size_have_features(shape):
    rng = np.random.default_rng(0)
    weights = init_classifier(rng, shape, 4, ClassifierOptions())
    extractor = classifier_extractor(weights, "synthetic")
    images = jax.ShapeDtypeStruct((2, *shape), np.uint8)
    features = jax.eval_shape(extractor.apply, extractor.params, images)
    assert features.pool.shape == (2, 64)
    assert features.logits.shape == (2, 4)


@pytest.mark.parametrize("label", [0, 7])
def test_images_without_labels_are_refused(digits, label):
    images = digits[0].images[:20]
    unlabelled = LabelledImages(images, np.full(20, label, np.int32))
    with pytest.raises(InputError, match=f"two labels, counted from 0, got {label}"):
        train_classifier(unlabelled, QUICK)


def test_a_place_that_cannot_be_written_is_refused(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        load_or_train_classifier(
            tmp_path / "file" / "x.safetensors",
            lambda: digits[0],
            num_images=len(digits[0].images),
            dataset="digits",
            fingerprint="a",
            options=replace(QUICK, num_steps=3),
        )
