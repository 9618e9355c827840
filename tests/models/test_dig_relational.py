"""`dig_relational` against its equations in NumPy, option by option."""

import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.models import create_backbone

sys.path.insert(0, str(Path(__file__).parent))
from random_problem import (
    assert_close,
    assert_low_precision_is_close,
    create_problem,
    in_numpy,
    output_and_gradient,
)
from relational_in_numpy import relational

SIZES = dict(width=16, depth=2, mlp_ratio=2.0)
CASES = {
    "relations": {},
    "four neighbours, a rectangle": dict(neighbors=4, image_shape=(8, 12, 1)),
    "scales, registers, gate, noise": dict(
        patch_sizes=(2, 4), hubs=4, channel_gate=True, noise_weights=True
    ),
    "untyped": dict(relations="untyped", patch_sizes=(2, 4)),
    "untyped hubs alone": dict(relations="untyped", conditioning="hubs", hubs=1),
    "hubs alone, gates of one": dict(conditioning="hubs", zero_gates=False),
    "hubs too, one branch, skips": dict(
        conditioning="both", branches=1, long_skips=True, num_classes=0
    ),
    "one branch by hubs": dict(conditioning="hubs", branches=1),
    "coarse attention": dict(attention_size=4, attention_width=0.5, num_heads=2),
    "hourglass, rms, swiglu": dict(
        outer_size=1, norm="rms", mlp="swiglu", zero_gates=False, outer_depth=2
    ),
    "two levels around, attention of the finest": dict(
        outer_size=(1, 2), patch_sizes=(4,), attention_size=4, image_shape=(8, 12, 1)
    ),
    "all at once, padded": dict(
        patch_sizes=(2, 4),
        hubs=1,
        conditioning="both",
        attention_size=4,
        num_heads=1,
        outer_size=1,
        long_skips=True,
        node_multiple=16,
        channel_gate=True,
    ),
}
cases = pytest.mark.parametrize("case", CASES)
FREE = {"node_multiple", "image_shape", "num_classes", "attention_width"}


def backbone_of(case, **options):
    shape = dict(image_shape=(8, 8, 1), num_classes=3, unroll=1)
    return create_backbone(
        "dig_relational", **{**shape, **SIZES, **CASES[case], **options}
    )


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cache
def result_of(case, **options):
    return output_and_gradient(backbone_of(case, **options), problem_of(case))


@cases
def test_prediction_and_features_are_those_of_the_equations(case):
    params, x, t, label, _ = problem_of(case)
    options = {k: v for k, v in CASES[case].items() if k not in FREE}
    prediction, features = in_numpy(relational, problem_of(case), **options)
    backbone = backbone_of(case)

    @jax.jit
    def both(*batch):
        return backbone.apply(*batch), backbone.features(*batch)

    assert_close(both(params, x, t, label), (prediction, features))


@pytest.mark.parametrize("aggregation", ["segment", "dense"])
def test_aggregations_agree_in_value_and_gradient(aggregation):
    case = "scales, registers, gate, noise"
    assert_close(result_of(case, aggregation=aggregation), result_of(case))


def test_how_blocks_are_run_changes_nothing():
    case = "all at once, padded"
    assert_close(result_of(case, unroll=0, remat=True), result_of(case))


def test_low_precision_is_close():
    case = "relations"
    low = result_of(case, dtype="mixed")
    assert_low_precision_is_close(low, result_of(case))


def test_it_starts_as_the_identity_of_its_stream():
    """Zero gates, zero head: what is predicted is 0, whatever the image."""
    backbone = backbone_of("relations")
    _, x, t, label, _ = problem_of("relations")
    params = backbone.init(jax.random.key(0))
    assert not np.any(jax.jit(backbone.apply)(params, x, t, label))
    features = jax.jit(backbone.features)(params, x, t, label)
    np.testing.assert_array_equal(features[0], features[-1])


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_relations_cost_no_products(platform):
    """Multiply-accumulates are the linears': messages are sums, however computed."""
    with compiling_for(platform):
        typed, untyped = (
            count_costs(
                backbone_of("relations", relations=kind, aggregation="stencil")
            ).macs
            for kind in ("typed", "untyped")
        )
    assert typed == untyped


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(patch_sizes=(4,), outer_size=3), "3-pixel patches need an image size"),
        (dict(patch_sizes=(4,), outer_size=4), "outer_size must be .* 4, got 4"),
        (dict(patch_sizes=(4,), outer_size=(2, 1)), "outer_size must be ascending"),
        (
            dict(patch_sizes=(4,), attention_size=2),
            "attention_size must be .* 4, got 2",
        ),
        (dict(outer_size=1, conditioning="hubs"), "outer patches would not know"),
        (dict(width=18), "width must be a multiple of 4"),
        (dict(attention_size=3), "3-pixel patches need"),
        (dict(attention_size=4, num_heads=3), "num_heads must divide .* 4, got 3"),
        (dict(noise_weights=True, relations="untyped"), "noise_weights needs"),
        (dict(long_skips=True, depth=3), "depth must be even with long_skips"),
        (dict(width=18), "width .* multiple of 4"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        backbone_of("relations", **options)
