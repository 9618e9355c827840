"""What is known of images' features, and what scores them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32
from pydantic import NonNegativeInt, PositiveInt

from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.moments import Moments
from dig_jax.metrics.scores import Score


@dataclass(frozen=True)
class FeatureOptions:
    """How features are scored.

    Attributes:
        num_held: Images whose features are kept, for KID, precision and recall: a
            seeded choice. All other scores come from sums. 10,000 are 80 MB.
        kid_subsets: Subsets of the kernel distance.
        kid_subset_size: Images in each.
        num_splits: Parts of the Inception score.
        num_neighbours: Of precision and recall.
        seed: Of what is drawn at random here.
        force: Score sets with fewer images than features all the same.
    """

    num_held: NonNegativeInt = 10_000
    kid_subsets: PositiveInt = 100
    kid_subset_size: PositiveInt = 1000
    num_splits: PositiveInt = 10
    num_neighbours: PositiveInt = 3
    seed: NonNegativeInt = 0
    force: bool = False


@dataclass(frozen=True)
class FeatureSummary:
    """What scores need to know of a set of images.

    Attributes:
        space: Where the features come from.
        moments: Of all images' features.
        spatial: Of the features that keep places (sFID); None where there are none.
        held: Features of some images, or of all.
        inception_score: Its mean and standard deviation over splits.
        label_accuracy: Share of images whose label the network reads.
    """

    space: FeatureSpace
    moments: Moments
    spatial: Moments | None = None
    held: Float32[np.ndarray, "held dim"] | None = None
    inception_score: tuple[float, float] | None = None
    label_accuracy: float | None = None

    @property
    def num_images(self) -> int:
        """How many images it is of; those of images that were drawn are counted."""
        assert self.moments.count is not None, "another project's file says no number"
        return self.moments.count


ScoreFeatures: TypeAlias = Callable[
    [FeatureSummary, FeatureSummary, FeatureOptions], tuple[Score, ...]
]
"""`(generated, reference, options) -> scores`; () where one of the two says too
little for them."""


class FeatureMetric(NamedTuple):
    """An entry of FEATURE_METRICS: what a set of images scores by its features.

    Attributes:
        score: The function; see `ScoreFeatures`.
        inception: Families of the scores that it gives of Inception's features.
        classifier: Those of features of a classifier of the data set's own.
        greater_is_better: Whether more of them is better.
        needs: `moments` of the pooled features; features that are `held`; or more than
            pooled features, of `all` images. The last is not to be had of fewer images
            than were drawn.
        reference: The array of the reference statistics' file that it cannot do
            without; "" where the reference does not matter.
    """

    score: ScoreFeatures
    inception: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    greater_is_better: bool = False
    needs: Literal["moments", "held", "all"] = "held"
    reference: Literal["mu", "mu_s", "features", ""] = "features"
