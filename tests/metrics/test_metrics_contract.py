"""Laws that every entry of METRICS keeps."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics import METRICS, score


def random_images(seed: int, count: int = 40, size: int = 4) -> LabelledImages:
    """Noise that is brighter for greater labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 3).astype(np.int32)
    images = (
        rng.integers(0, 100, (count, size, size, 3)) + 50 * labels[:, None, None, None]
    )
    return LabelledImages(images.astype(np.uint8), labels)


@pytest.mark.parametrize("name", METRICS)
def test_new_draws_of_one_distribution_score_about_alike(name):
    train = random_images(0, count=400)
    scores = [METRICS[name](random_images(seed, 400), train) for seed in (1, 2)]
    # Shares of 400 differ by less than five standard deviations, 0.18; distances by
    # less than the spread of their kind.
    assert scores[0] == pytest.approx(scores[1], rel=0.1, abs=0.18)


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_images_does_not_matter(name):
    images, train = (random_images(seed) for seed in range(2))
    order = np.random.default_rng(9).permutation(40)
    shuffled = LabelledImages(images.images[order], images.labels[order])
    assert METRICS[name](shuffled, train) == pytest.approx(METRICS[name](images, train))


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_plain_floats_of_names_that_no_other_metric_uses(name):
    sets = [random_images(seed) for seed in range(2)]
    scores = METRICS[name](*sets)
    assert all(type(value) is float for value in scores.values())
    for other in METRICS.keys() - {name}:
        assert not scores.keys() & METRICS[other](*sets).keys()


def test_score_joins_the_metrics_named():
    sets = [random_images(seed) for seed in range(2)]
    expected = METRICS["copies"](*sets) | METRICS["frechet_pixels"](*sets)
    assert score(["copies", "frechet_pixels"], *sets) == expected


def test_an_unknown_metric_is_refused_with_the_choices():
    sets = [random_images(seed) for seed in range(2)]
    with pytest.raises(InputError, match=r"'fid'. Available: copies, frechet_pixels, "):
        score(["copies", "fid"], *sets)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"got \(5, 5, 3\) and \(4, 4, 3\)"):
        score(["copies"], random_images(0, size=5), random_images(1))


def test_an_empty_set_is_refused():
    with pytest.raises(InputError, match="at least one image, got none"):
        score(["copies"], random_images(0, count=0), random_images(1))
    with pytest.raises(InputError, match="at least one training image, got none"):
        score(["copies"], random_images(0), random_images(1, count=0))
