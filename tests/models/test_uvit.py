"""U-ViT against an independent implementation, and against its published sizes."""

import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
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
from uvit_in_numpy import uvit

CASES = {
    "unconditional": dict(
        image_shape=(8, 8, 3), patch_size=2, width=24, depth=4, num_heads=3
    ),
    "labels and a rectangle": dict(
        image_shape=(8, 12, 1),
        patch_size=4,
        width=16,
        depth=2,
        num_heads=4,
        num_classes=5,
        null_label=True,
        mlp_ratio=2.5,
        qkv_bias=True,
    ),
}
cases = pytest.mark.parametrize("case", CASES)


def backbone_of(case, **options):
    # A loop over blocks compiles faster than its unrolling.
    return create_backbone("uvit", **{"unroll": 1, **CASES[case], **options})


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cache
def result_of(case, **options):
    return output_and_gradient(backbone_of(case, **options), problem_of(case))


def reference(case):
    options = {key: CASES[case][key] for key in ("patch_size", "depth", "num_heads")}
    return in_numpy(uvit, problem_of(case), **options)


@cases
def test_prediction_equals_the_authors_in_numpy(case):
    params, x, t, label, _ = problem_of(case)
    output = jax.jit(backbone_of(case).apply)(params, x, t, label)
    assert_close(output, reference(case)[0])


@cases
def test_features_are_the_patch_tokens_after_each_block(case):
    params, x, t, label, _ = problem_of(case)
    features = jax.jit(backbone_of(case).features)(params, x, t, label)
    assert_close(features, reference(case)[1])


def test_it_starts_as_the_authors_does():
    """timm's trunc_normal_(0.02) cuts at 2; convolutions start as torch's do."""
    backbone = create_backbone(
        "uvit", image_shape=(64, 64, 3), width=256, depth=2, patch_size=4
    )
    params = backbone.init(jax.random.key(0))
    expand = np.asarray(
        params["blocks"]["middle_block"]["block"]["mlp"]["expand"]["kernel"]
    )
    assert np.std(expand) == pytest.approx(0.02, rel=0.01)
    assert np.max(np.abs(expand)) > 0.06  # normal, beyond three deviations
    assert np.std(params["position"]) == pytest.approx(0.02, rel=0.02)
    for layer, fan_in in (("patch", 4 * 4 * 3), ("smooth", 3 * 3 * 3)):
        for leaf in params[layer].values():
            assert np.max(np.abs(leaf)) <= fan_in**-0.5
            assert np.any(np.abs(leaf) > 0.5 * fan_in**-0.5)
    bias = np.asarray(params["patch"]["bias"])  # 256 of them
    assert np.std(bias) == pytest.approx((48 * 3) ** -0.5, rel=0.1)


def test_how_blocks_are_run_changes_nothing():
    case = "labels and a rectangle"
    assert_close(result_of(case, unroll=0, remat=True), result_of(case))


def test_low_precision_stays_close_to_float32():
    case = "labels and a rectangle"
    assert_low_precision_is_close(result_of(case, dtype="bfloat16"), result_of(case))


def test_parameters_are_one_tree_for_all_ways_to_run():
    trees = [
        jax.eval_shape(backbone_of("unconditional", **options).init, jax.random.key(0))
        for options in (
            dict(),
            dict(unroll=0, remat=True),
            dict(dtype="bfloat16", attention="xla", token_multiple=8),
        )
    ]
    assert trees[1:] == trees[:1] * 2


SMALL = dict(image_shape=(32, 32, 3), width=512, depth=12, num_heads=8)
IMAGENET = dict(image_shape=(64, 64, 3), patch_size=4, num_classes=1000)


@pytest.mark.parametrize(
    ("options", "params", "macs"),
    [
        # Millions of parameters and giga-MACs of an image: arXiv:2209.12152, and
        # Tables 1 and 2 of the DiG paper (MACs of 128 images there).
        (SMALL, "44.26", "11.32"),
        (SMALL | dict(patch_size=4), "44.19", None),
        (SMALL | dict(patch_size=8), "44.32", None),
        (SMALL | dict(width=448, depth=10), "28.68", None),
        (IMAGENET | dict(width=768, depth=16, num_heads=12), "130.94", "33.50"),
        (IMAGENET | dict(width=1024, depth=20, num_heads=16), "286.83", "73.61"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_sizes_are_the_published_ones_to_the_last_digit(options, params, macs):
    costs = count_costs(create_backbone("uvit", **options, unroll=1))
    assert f"{costs.params / 1e6:.2f}" == params
    if macs is not None:  # of linear layers and convolutions, without attention
        assert f"{costs.macs / 1e9:.2f}" == macs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=3), "depth must be even.*got 3"),
        (dict(depth=0), "at least 2.*got 0"),
        (dict(patch_size=3), "divisible by 3, got 8x8.*fit: 1, 2, 4, 8"),
        (dict(num_heads=5), "got 5 heads for width 24.*fit: 1, 2, 3, 4, 6, 8, 12, 24"),
        (dict(null_label=True), "num_classes=0"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        backbone_of("unconditional", **options)
