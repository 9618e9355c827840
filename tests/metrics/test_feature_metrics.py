"""Laws that every entry of FEATURE_METRICS keeps, and an entry more."""

from dataclasses import replace

import numpy as np
import pytest

from dig_jax.data import create_dataset
from dig_jax.evaluation import Score, score_families
from dig_jax.evaluation.records import is_better, read_scores
from dig_jax.metrics import FEATURE_METRICS
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import scores_from_features, scores_of_draws
from dig_jax.metrics.feature_summary import (
    FeatureMetric,
    FeatureOptions,
    FeatureSummary,
)
from dig_jax.metrics.moments import moments_of
from dig_jax.options import EvaluationOptions

DIM = 4


def summarize(seed: int, count: int = 60, *, domain: str = "") -> FeatureSummary:
    """Of normal features, and all else that a summary may hold."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, DIM)).astype(np.float32)
    summary = FeatureSummary(
        FeatureSpace("network", "abc", "none", DIM, domain),
        moments_of(features),
        held=features,
    )
    if domain:
        return replace(summary, label_accuracy=0.75)
    spatial = moments_of(rng.normal(size=(count, 3)))
    return replace(summary, spatial=spatial, inception_score=(2.0, 0.25))


@pytest.mark.parametrize("domain", ["", "digits"])
@pytest.mark.parametrize("name", FEATURE_METRICS)
def test_a_metric_gives_the_families_that_it_says(name, domain):
    metric, options = FEATURE_METRICS[name], FeatureOptions()
    generated, reference = summarize(0, domain=domain), summarize(1, 70, domain=domain)
    scores = metric.score(generated, reference, options)
    families = metric.classifier if domain else metric.inception
    assert tuple(score.family for score in scores) == families
    for score in scores:
        assert (score.domain, score.num_images, score.of) == (domain, 60, "features")
        assert type(score.value) is float
    bare = FeatureSummary(generated.space, generated.moments)
    if metric.needs != "moments":  # what is not known is left out
        assert metric.score(bare, reference, options) == ()


def test_no_two_metrics_give_the_same_family():
    for network in ("inception", "classifier"):
        families = [f for m in FEATURE_METRICS.values() for f in getattr(m, network)]
        assert len(families) == len(set(families))


def mean_shift(generated, reference, options):
    """|mean - mean|: a metric of one file, for once here."""
    shift = np.linalg.norm(generated.moments.mean - reference.moments.mean)
    count, domain = generated.num_images, generated.space.domain
    return (Score("mean_shift", float(shift), count, domain),)


def test_one_entry_adds_a_metric_of_features(monkeypatch):
    """Scored, of draws too, chosen by, compared and read back: with nothing more."""
    entry = FeatureMetric(mean_shift, ("mean_shift",), ("mean_shift",), needs="moments")
    monkeypatch.setitem(FEATURE_METRICS, "mean_shift", entry)
    generated, reference = summarize(0), summarize(1, 70)
    *_, score = scores_from_features(generated, reference)
    assert generated.held is not None
    assert reference.held is not None
    means = generated.held.mean(axis=0) - reference.held.mean(axis=0)
    assert score.value == pytest.approx(np.linalg.norm(means), rel=1e-5)
    assert score.name == "mean_shift60"
    *_, fewer = scores_of_draws(generated, reference, num_images=20)
    assert fewer.name == "mean_shift20"
    assert is_better(score, score.value + 1)
    assert read_scores({"scores": {score.name: score.to_json()}}) == (score,)
    options = EvaluationOptions(features="classifier", metrics=())
    source = create_dataset("synthetic", split="train", image_size=4, num_classes=3)
    assert "mean_shift_synthetic" in score_families(options, source)
