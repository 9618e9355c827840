"""Which label each image is drawn for."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from dig_jax.errors import InputError

LabelRule: TypeAlias = str | int | Sequence[int]
LABEL_RULES = ("balanced", "uniform", "training")


def choose_labels(
    rule: LabelRule,
    num_images: int,
    num_classes: int,
    *,
    seed: int = 0,
    label_counts: Int[np.ndarray, "class"] | None = None,
) -> Int[np.ndarray, "batch"] | None:
    """The label of each image; None for an unconditional backbone.

    Image i's label depends on the rule, the seed and i, not on how many are drawn.

    Args:
        rule: As `SampleOptions.labels`.
        num_images: How many.
        num_classes: Of the backbone.
        seed: Of the random rules.
        label_counts: Training images of each class, for the rule "training".

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
    elif isinstance(rule, str):
        try:
            choices = tuple(int(part) for part in rule.strip("()[], ").split(","))
        except ValueError:
            raise InputError(
                f"sample.labels must be one of {', '.join(LABEL_RULES)}, a label, or "
                f"labels such as '0,3', got {rule!r}."
            ) from None
    else:
        choices = (rule,) if isinstance(rule, int) else tuple(rule)
    wrong = [label for label in choices if not 0 <= label < num_classes]
    if wrong or not choices:
        raise InputError(
            f"sample.labels must lie in 0 to {num_classes - 1}, got "
            f"{', '.join(map(str, wrong)) or 'none'}."
        )
    return np.resize(np.array(choices, np.int32), num_images)
