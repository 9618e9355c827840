"""Of real images' scores is said what holds at the numbers that they are of."""

import numpy as np
import pytest

from dig_jax.evaluation.real_beside import explain_real, name_real_of
from dig_jax.interfaces import LabelledImages
from dig_jax.metrics.frechet_pixels import frechet_pixels
from dig_jax.metrics.scores import Score


def of(num_images, num_real, family="frechet_pixels"):
    real = None if num_real is None else 0.5
    kind = "features" if family == "fd" else "pixels"
    return Score(family, 1.0, num_images, of=kind, real=real, num_real=num_real)


def test_it_is_a_floor_at_equal_numbers_alone():
    equal, fewer, more = (explain_real([of(n, 297)]) for n in (297, 1000, 100))
    assert "noise floor" in equal
    assert "1/N" not in equal
    for text in (fewer, more):
        assert "floor" not in text
        assert "1/N" in text
    assert "297 real images beside 1,000 drawn ones" in fewer
    assert "no lower bound" in fewer
    assert "would lie higher" in more
    assert explain_real([of(100, None)]) == ""


def test_each_score_is_told_by_its_own_numbers():
    scores = [of(1000, 297), of(297, 297, "fd"), of(1000, 297, "label_accuracy")]
    text = explain_real(scores)
    assert "noise floor" in text
    assert text.count("1/N") == 1
    assert "frechet_pixels is of 297 real images" in text
    assert "accuracy is on average the same" in text
    assert name_real_of(scores) == "297 real test images"
    assert name_real_of([*scores, of(1000, 500, "fd")]) == "real test images"


@pytest.mark.parametrize("count", [100, 400])
def test_a_frechet_distance_has_an_excess_of_about_one_over_n(count, rng):
    """Of normal pixels: two sets of one law, the larger one as good as the whole."""

    def draw(number):
        pixels = np.clip(rng.normal(128, 25, (number, 4, 4, 1)), 0, 255)
        return LabelledImages(pixels.astype(np.uint8), np.zeros(number, np.int32))

    whole = draw(40_000)

    def excess(number):
        found = [frechet_pixels(draw(number), whole) for _ in range(20)]
        return np.mean([scores["frechet_pixels"] for scores in found])

    assert excess(count) / excess(3 * count) == pytest.approx(3, rel=0.15)
