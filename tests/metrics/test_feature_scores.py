import numpy as np
import pytest
from tiny_network import (
    DIM,
    features_in_numpy,
    one_device,
    random_images,
    tiny_extractor,
)

from dig_jax.errors import InputError, NonFiniteError
from dig_jax.metrics.feature_scores import (
    FeatureOptions,
    FeatureSummary,
    scores_from_features,
    scores_of_draws,
    summarize_images,
)
from dig_jax.metrics.frechet_pixels import frechet_distance
from dig_jax.metrics.kernel_distance import kernel_distance
from dig_jax.metrics.moments import moments_of
from dig_jax.metrics.precision_recall import precision_recall
from dig_jax.metrics.scores import Score, format_count


def summarize(
    images: np.ndarray, extractor=None, options=None, labels=None
) -> FeatureSummary:
    batches = [images[i : i + 9] for i in range(0, len(images), 9)]
    return summarize_images(
        extractor or tiny_extractor(),
        batches,
        len(images),
        one_device(),
        labels=labels,
        options=options,
    )


def by_name(scores: tuple[Score, ...]) -> dict[str, float]:
    return {score.name: score.value for score in scores}


def test_scores_are_those_of_features_in_memory():
    x, y = random_images(0, 50), random_images(1, 60)
    found = scores_from_features(summarize(x), summarize(y))
    scores = by_name(found)
    assert set(scores) == {
        "fid50",
        "sfid50",
        "kid50",
        "precision50",
        "recall50",
        "inception_score50",
    }
    of_parts = {score.family for score in found if score.std is not None}
    assert of_parts == {"kid", "inception_score"}
    (pool_x, _, spatial_x), (pool_y, _, spatial_y) = (
        features_in_numpy(tiny_extractor(), images) for images in (x, y)
    )
    # Features are float32; so are they for the real network.
    for name, a, b in (("fid50", pool_x, pool_y), ("sfid50", spatial_x, spatial_y)):
        expected = frechet_distance(
            a.mean(axis=0),
            np.cov(a, rowvar=False),
            b.mean(axis=0),
            np.cov(b, rowvar=False),
        )
        assert scores[name] == pytest.approx(expected, rel=1e-5)
    assert scores["kid50"] == pytest.approx(
        kernel_distance(pool_x, pool_y)[0], rel=1e-4
    )
    expected = precision_recall(pool_x, pool_y)
    assert (scores["precision50"], scores["recall50"]) == expected
    assert 1 < scores["inception_score50"] < 10
    assert all(type(value) is float for value in scores.values())


def test_scores_do_not_depend_on_how_images_come():
    x, y = random_images(2, 50), summarize(random_images(3, 60))
    whole = summarize_images(tiny_extractor(), [x], 50, one_device())
    assert scores_from_features(whole, y) == scores_from_features(summarize(x), y)


def test_no_more_features_are_held_than_asked_for():
    options = FeatureOptions(num_held=12)
    x, y = random_images(4, 40), summarize(random_images(5, 40))
    summary = summarize(x, options=options)
    assert summary.held is not None
    assert summary.held.shape == (12, DIM)
    pool = features_in_numpy(tiny_extractor(), x)[0]
    distance = np.abs(pool[:, None] - summary.held[None]).max(axis=2)
    index = distance.argmin(axis=0)
    assert distance.min(axis=0).max() < 1e-5
    assert len(set(index)) == 12
    assert index.tolist() == sorted(index)
    names = by_name(scores_from_features(summary, y)).keys()
    assert {"fid40", "kid12", "recall12"} < names
    none = summarize(x, options=FeatureOptions(num_held=0))
    assert none.held is None
    names = by_name(scores_from_features(none, y)).keys()
    assert names == {"fid40", "sfid40", "inception_score40"}


def test_scores_of_a_classifier_carry_its_data_sets_name():
    extractor = tiny_extractor(domain="digits", spatial=False)
    x, y = random_images(6, 50), random_images(7, 60)
    labels = features_in_numpy(extractor, x)[1].argmax(axis=1).astype(np.int32)
    labels[:10] = (labels[:10] + 1) % 10
    generated = summarize(x, extractor, labels=labels)
    scores = by_name(scores_from_features(generated, summarize(y, extractor)))
    assert set(scores) == {
        "fd_digits50",
        "kid_digits50",
        "precision_digits50",
        "recall_digits50",
        "label_accuracy_digits50",
    }
    assert scores["label_accuracy_digits50"] == 0.8


def test_labels_of_another_network_are_refused():
    with pytest.raises(InputError, match="tiny was not trained on"):
        summarize(random_images(0, 9), labels=np.zeros(9, np.int32))


@pytest.mark.parametrize(
    ("count", "name"),
    [(1000, "1k"), (50_000, "50k"), (297, "297"), (1500, "1500"), (10_000, "10k")],
)
def test_counts_are_named(count, name):
    assert format_count(count) == name


def test_fewer_images_than_features_are_refused_unless_forced():
    x, y = summarize(random_images(8, DIM)), summarize(random_images(9, 40))
    with pytest.raises(InputError, match=f"got {DIM} generated and 40 real"):
        scores_from_features(x, y)
    assert by_name(scores_from_features(x, y, force=True))[f"fid{DIM}"] > 0


def test_features_of_other_weights_are_refused():
    x, y = summarize(random_images(8, 40)), summarize(random_images(9, 40))
    other = FeatureSummary(
        x.space.__class__("tiny", "fedcba9876543210", "none", DIM), y.moments
    )
    with pytest.raises(InputError, match=r"0123456789abcdef.*fedcba9876543210"):
        scores_from_features(x, other)


@pytest.mark.parametrize(("announced", "came"), [(20, "more"), (25, "24")])
def test_another_number_of_images_than_announced_is_refused(announced, came):
    images = random_images(10, 24)
    with pytest.raises(InputError, match=f"of {announced} images, got {came}"):
        summarize_images(tiny_extractor(), [images], announced, one_device())


def test_features_that_are_not_finite_are_refused():
    extractor = tiny_extractor()
    extractor.params["pool"][3, 2] = np.nan
    with pytest.raises(NonFiniteError, match="finite values"):
        summarize(random_images(11, 24), extractor)


def test_the_noise_floor_is_what_draws_of_test_images_score():
    reference = summarize(random_images(12, 60))
    test = summarize(random_images(13, 50))
    floor = scores_of_draws(test, reference, num_images=20, num_draws=4)
    assert by_name(floor).keys() == {"fid20", "kid20", "precision20", "recall20"}
    assert floor[0].std is not None
    assert floor[0].std > 0
    # Fewer images score worse: the whole test set is nearer than draws of it.
    whole = scores_of_draws(test, reference, num_images=1000)[0]
    assert (whole.name, whole.std) == ("fid50", None)
    assert whole.value < floor[0].value
    expected = scores_from_features(test, reference)[0].value
    assert whole.value == pytest.approx(expected)


def test_a_noise_floor_needs_held_features():
    reference = summarize(random_images(14, 60))
    pool = features_in_numpy(tiny_extractor(), random_images(15, 50))[0]
    test = FeatureSummary(reference.space, moments_of(pool))
    with pytest.raises(InputError, match="features held"):
        scores_of_draws(test, reference, num_images=20)
