"""Which label each image is drawn for."""

import difflib
import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from dig_jax.errors import InputError

LabelRule: TypeAlias = str | int | Sequence[int | str]
LABEL_RULES = ("balanced", "uniform", "training")
MOST_NAMED = 20


def choose_labels(
    rule: LabelRule,
    num_images: int,
    num_classes: int,
    *,
    seed: int = 0,
    label_counts: Int[np.ndarray, "class"] | None = None,
    class_names: Sequence[str] = (),
) -> Int[np.ndarray, "batch"] | None:
    """The label of each image; None for an unconditional backbone.

    Image i's label depends on the rule, the seed and i, not on how many are drawn.

    Args:
        rule: As `SampleOptions.labels`.
        num_images: How many.
        num_classes: Of the backbone.
        seed: Of the random rules.
        label_counts: Training images of each class, for the rule "training".
        class_names: A name for each label; () where they have none but their digits.

    Raises:
        InputError: A label that does not exist, or labels where there are none.
    """
    if num_classes == 0:
        if rule != "balanced":
            raise InputError(
                f"This backbone is unconditional (num_classes=0) and takes no labels; "
                f"got sample.labels={rule!r}. Leave it at 'balanced'."
            )
        return None
    if rule in ("uniform", "training"):
        counts = np.ones(num_classes) if rule == "uniform" else label_counts
        assert counts is not None, "the rule 'training' needs label_counts"
        stream = np.random.Philox(np.random.SeedSequence(seed))
        place = stream.random_raw(num_images) / 2.0**64  # in [0, 1], the same for ever
        share = np.cumsum(counts) / np.sum(counts)
        labels = np.searchsorted(share, place, side="right").astype(np.int32)
        return np.minimum(labels, np.flatnonzero(counts).max().astype(np.int32))
    if rule == "balanced":
        choices = tuple(range(num_classes))
    else:
        choices = _read_labels(rule, num_classes, class_names)
    wrong = [label for label in choices if not 0 <= label < num_classes]
    if wrong or not choices:
        raise InputError(
            f"sample.labels must lie in 0 to {num_classes - 1}"
            f"{_list_names(class_names)}, got {', '.join(map(str, wrong)) or 'none'}."
        )
    return np.resize(np.array(choices, np.int32), num_images)


def ambiguous_labels(rule: LabelRule, class_names: Sequence[str]) -> str:
    """A line on text that is a class name, and in digits the label of another class.

    "" where there is none.
    """
    parts = _parts(rule, class_names) if rule not in LABEL_RULES else []
    numbers = {_normal(name): label for label, name in enumerate(class_names)}
    lines = [
        f"label {part!r} is read as the class of that name, label "
        f"{numbers[_normal(part)]}; label {int(part)} is the class "
        f"{class_names[int(part)]!r}"
        for part in parts
        if isinstance(part, str)
        and _normal(part) in numbers
        and part.isdecimal()
        and int(part) != numbers[_normal(part)]
        and int(part) < len(class_names)
    ]
    return "; ".join(lines)


def _read_labels(
    rule: LabelRule, num_classes: int, class_names: Sequence[str]
) -> tuple[int, ...]:
    """Labels of class names, of digits in text, and of whole numbers.

    Raises:
        InputError: Text that is neither.
    """
    numbers = {_normal(name): label for label, name in enumerate(class_names)}
    labels = []
    for part in _parts(rule, class_names):
        if isinstance(part, int):
            labels.append(part)
        elif _normal(part) in numbers:
            labels.append(numbers[_normal(part)])
        else:
            try:
                labels.append(int(part))
            except ValueError:
                raise InputError(
                    f"sample.labels must be one of {', '.join(LABEL_RULES)}, a label "
                    f"(0 to {num_classes - 1}{_list_names(class_names)}), or several "
                    f"such as '0,3', got {part!r}.{did_you_mean(part, class_names)}"
                ) from None
    return tuple(labels)


def did_you_mean(text: str, class_names: Sequence[str]) -> str:
    """A question that ends a message on a class that does not exist; "" for none."""
    names = list(map(_normal, class_names))
    near = difflib.get_close_matches(_normal(text), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _parts(rule: LabelRule, class_names: Sequence[str]) -> list[int | str]:
    """The labels in a rule, each as it is written; a name may have commas in it."""
    if isinstance(rule, int):
        return [rule]
    if not isinstance(rule, str):
        return list(rule)
    if _normal(rule) in map(_normal, class_names):
        return [rule]
    return [part.strip(" \"'") for part in rule.strip("()[], ").split(",")]


def _list_names(class_names: Sequence[str]) -> str:
    """The class names to choose from, after the labels; "" where there are none."""
    if not class_names:
        return ""
    more = ", ..." if len(class_names) > MOST_NAMED else ""
    return f" or a class: {', '.join(class_names[:MOST_NAMED])}{more}"


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
