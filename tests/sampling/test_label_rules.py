"""Which label each image is drawn for."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.sampling.label_rules import choose_labels

COUNTS = np.array([50, 0, 30, 20, 0])


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
        ("", "balanced, .*got ''"),
        ("cat", "balanced, .*got 'cat'"),
    ],
)
def test_labels_that_do_not_exist_are_refused(rule, said):
    with pytest.raises(InputError, match=said):
        choose_labels(rule, 5, 10)


def test_an_unconditional_backbone_has_no_labels():
    assert choose_labels("balanced", 5, 0) is None
    with pytest.raises(InputError, match=r"unconditional.*labels=3"):
        choose_labels(3, 5, 0)


@pytest.mark.parametrize("rule", ["uniform", "training"])
def test_random_labels_of_fewer_images_are_a_prefix(rule):
    def choose(num_images, seed=0):
        labels = choose_labels(rule, num_images, 5, seed=seed, label_counts=COUNTS)
        assert labels is not None
        return labels

    for num_images in (1, 2, 13):
        np.testing.assert_array_equal(choose(num_images), choose(50)[:num_images])
    assert (choose(50) != choose(50, seed=1)).any()


@pytest.mark.parametrize(
    ("rule", "share"), [("uniform", np.full(5, 0.2)), ("training", COUNTS / 100)]
)
def test_random_labels_come_as_often_as_the_rule_says(rule, share):
    labels = choose_labels(rule, 10_000, 5, label_counts=COUNTS)
    assert labels is not None
    assert labels.dtype == np.int32
    found = np.bincount(labels, minlength=5) / 10_000
    # Five standard deviations of a share of 10,000.
    assert np.all(np.abs(found - share) <= 5 * np.sqrt(share * (1 - share) / 10_000))
