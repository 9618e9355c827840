"""DiCo against an independent implementation, and the published sizes."""

import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.errors import InputError
from dig_jax.models import create_backbone
from dig_jax.models.dico import SIZES, xavier_by_channel, xavier_of_matrix

sys.path.insert(0, str(Path(__file__).parent))
from dico_in_numpy import dico
from random_problem import (
    assert_close,
    assert_low_precision_is_close,
    create_problem,
    in_numpy,
    output_and_gradient,
)

LABELS = "labels, learned variance"
CASES = {
    LABELS: dict(
        image_shape=(8, 8, 2),
        width=8,
        stage_depths=(2, 1, 2, 1, 2),
        num_classes=3,
        null_label=True,
        learned_variance=True,
    ),
    "no labels, a rectangle": dict(
        image_shape=(4, 12, 1), width=6, depth=1, mlp_ratio=1.5
    ),
}


def backbone_of(case, **options):
    return create_backbone("dico", **{"unroll": 1, **CASES[case], **options})


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cache
def result_of(case, **options):
    return output_and_gradient(backbone_of(case, **options), problem_of(case))


@cache
def reference(case):
    depths = CASES[case].get("stage_depths", (1,) * 5)
    return in_numpy(partial(dico, depths=depths), problem_of(case))


@pytest.mark.parametrize("case", CASES)
def test_prediction_and_features_equal_numpy(case):
    params, x, t, label, _ = problem_of(case)
    backbone = backbone_of(case)

    @jax.jit
    def run(params):
        arguments = params, x, t, label
        if backbone.with_variance is None:
            return backbone.apply(*arguments), backbone.features(*arguments)
        both = backbone.with_variance(*arguments)
        return jnp.concatenate(both, axis=-1), backbone.features(*arguments)

    output, features = run(params)
    expected, expected_features = reference(case)
    assert output.shape[-1] == x.shape[-1] * (2 if case == LABELS else 1)
    assert_close(output, expected)
    assert_close(features, expected_features)


def test_how_blocks_are_run_changes_nothing():
    assert_close(result_of(LABELS, unroll=0, remat=True), result_of(LABELS))


def test_low_precision_stays_close_to_float32():
    assert_low_precision_is_close(
        result_of(LABELS, dtype="bfloat16"), result_of(LABELS)
    )


# Parameters to the last digit as the authors' logs of training have them, giga-MACs as
# the paper rounds them.
@pytest.mark.parametrize(
    ("size", "params", "macs"),
    [
        ("S", 33_137_672, "4.25"),
        ("B", 129_992_712, "16.88"),
        ("L", 463_897_992, "60.24"),
        ("XL", 701_151_368, "87.30"),
    ],
)
def test_sizes_are_the_published_ones(size, params, macs):
    latents = dict(image_shape=(32, 32, 4), num_classes=1000, null_label=True, unroll=1)
    costs = count_costs(
        create_backbone("dico", learned_variance=True, **latents, **SIZES[size])
    )
    assert costs.params == params
    assert costs.attention_macs == 0
    # The paper's count has two more for each value of a norm, and one for each value
    # that is averaged (docs/dico.md).
    width, depths = SIZES[size]["width"], SIZES[size]["stage_depths"]
    values = [width * factor for factor in (1024, 512, 256, 512, 2048)]
    in_blocks = sum((2 * 2 + 1) * n * v for n, v in zip(depths, values, strict=True))
    at_the_end = 2 * values[-1]
    assert f"{(costs.macs + in_blocks + at_the_end) / 1e9:.2f}" == macs


@pytest.mark.parametrize(
    ("start", "shape", "fans"),
    [
        (xavier_by_channel, (3, 3, 40), 9 + 9 * 40),
        (xavier_of_matrix, (3, 3, 4, 40), 9 * 4 + 40),
    ],
)
def test_kernels_start_within_the_bounds_of_torchs_xavier_uniform(start, shape, fans):
    kernel = np.asarray(start(jax.random.key(0), shape))
    assert kernel.shape == shape
    bound = np.sqrt(6 / fans)
    # Of 360 uniform numbers the largest is within 5% of the bound but for e^-18.
    assert 0.95 * bound < np.abs(kernel).max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(image_shape=(8, 6, 1)), "must be multiples of 4, got 8x6"),
        (dict(width=7), "width of a DiCo must be even.*got 7"),
        (dict(stage_depths=(1, 2, 1)), r"each of the 5 stages, got \(1, 2, 1\)"),
        (dict(null_label=True), "no labels to drop"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        create_backbone("dico", **{"image_shape": (8, 8, 1), "width": 8, **options})
