"""Which label each image is drawn for."""

import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.sampling.label_rules import ambiguous_labels, choose_labels

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


NAMES = ("1", "10", "cafe\u0301", "a,b")


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ("10", [1]),  # the name, also where it is another's label
        (1, [1]),  # a whole number is a label
        ("1", [0]),
        ("2", [2]),  # no name: a label in digits
        ("caf\u00e9", [2]),  # composed or not
        ("a,b", [3]),
        ("10,2", [1, 2]),
        (("a,b", 0), [3, 0]),
    ],
)
def test_text_is_a_class_name_where_there_is_one(rule, labels):
    found = choose_labels(rule, len(labels), 4, class_names=NAMES)
    assert found is not None
    assert found.tolist() == labels


def test_a_name_that_is_another_class_label_is_told():
    assert (
        "'1' is read as the class of that name, label 0; label 1 is the class '10'"
        in (ambiguous_labels("1", NAMES))
    )
    for rule in (1, "2", "a,b", "balanced"):
        assert ambiguous_labels(rule, NAMES) == ""


def test_an_unknown_name_is_answered_with_the_names():
    with pytest.raises(InputError, match=r"a class: cat, dog\), .*'dgo'\. .* 'dog'\?"):
        choose_labels("dgo", 1, 2, class_names=("cat", "dog"))
