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
def test_test_images_as_generated_ones_reach_the_baseline(name):
    train, test = random_images(0), random_images(1)
    scores = METRICS[name](test, train, test)
    own = [key for key in scores if not key.endswith("_test")]
    assert own
    assert {f"{key}_test" for key in own} == scores.keys() - set(own)
    for key in own:
        assert scores[key] == pytest.approx(scores[f"{key}_test"])


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_images_does_not_matter(name):
    generated, train, test = (random_images(seed) for seed in range(3))
    order = np.random.default_rng(9).permutation(40)
    shuffled = LabelledImages(generated.images[order], generated.labels[order])
    expected = METRICS[name](generated, train, test)
    assert METRICS[name](shuffled, train, test) == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_plain_floats_of_names_that_no_other_metric_uses(name):
    sets = [random_images(seed) for seed in range(3)]
    scores = METRICS[name](*sets)
    assert all(type(value) is float for value in scores.values())
    for other in METRICS.keys() - {name}:
        assert not scores.keys() & METRICS[other](*sets).keys()


def test_score_joins_the_metrics_named():
    sets = [random_images(seed) for seed in range(3)]
    expected = METRICS["copies"](*sets) | METRICS["frechet_pixels"](*sets)
    assert score(["copies", "frechet_pixels"], *sets) == expected


def test_an_unknown_metric_is_refused_with_the_choices():
    sets = [random_images(seed) for seed in range(3)]
    with pytest.raises(InputError, match=r"'fid'. Available: copies, frechet_pixels, "):
        score(["copies", "fid"], *sets)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(5, 5, 3\) for the generated images"):
        score(["copies"], random_images(0, size=5), random_images(1), random_images(2))


def test_an_empty_set_is_refused():
    with pytest.raises(InputError, match="at least one generated image"):
        score(["copies"], random_images(0, count=0), random_images(1), random_images(2))
