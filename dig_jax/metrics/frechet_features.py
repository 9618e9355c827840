"""Frechet distances of features: FID, and sFID of features that keep places."""

from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.moments import feature_distance
from dig_jax.metrics.scores import Score


def frechet(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """FID (arXiv:1706.08500, Eq. 6), or `fd` of a classifier's features.

    Raises:
        InputError: Fewer images than features, unless forced.
    """
    distance = feature_distance(
        generated.moments, reference.moments, force=options.force
    )
    domain = generated.space.domain
    family = "fd" if domain else "fid"
    return (Score(family, distance, generated.num_images, domain),)


def spatial_frechet(
    generated: FeatureSummary, reference: FeatureSummary, options: FeatureOptions
) -> tuple[Score, ...]:
    """sFID (arXiv:2103.03841): of features that keep places.

    Raises:
        InputError: Fewer images than features, unless forced.
    """
    if generated.spatial is None or reference.spatial is None:
        return ()
    distance = feature_distance(
        generated.spatial, reference.spatial, force=options.force
    )
    return (Score("sfid", distance, generated.num_images, generated.space.domain),)


FRECHET = FeatureMetric(frechet, ("fid",), ("fd",), needs="moments", reference="mu")
SPATIAL_FRECHET = FeatureMetric(
    spatial_frechet, ("sfid",), needs="all", reference="mu_s"
)
