"""DiT against an independent implementation, and against its published sizes."""

import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.errors import InputError
from dig_jax.models import create_backbone
from dig_jax.models.dit import grid_positions

sys.path.insert(0, str(Path(__file__).parent))
from dit_in_numpy import dit, position_embedding
from random_problem import (
    assert_close,
    assert_low_precision_is_close,
    create_problem,
    in_numpy,
    output_and_gradient,
)

CASES = {
    "unconditional": dict(
        image_shape=(8, 8, 3), patch_size=2, width=24, depth=3, num_heads=3
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
    ),
}
cases = pytest.mark.parametrize("case", CASES)


def backbone_of(case, **options):
    # A loop over blocks compiles faster than its unrolling.
    return create_backbone("dit", **{"unroll": 1, **CASES[case], **options})


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cache
def result_of(case, **options):
    return output_and_gradient(backbone_of(case, **options), problem_of(case))


def reference(case):
    options = {key: CASES[case][key] for key in ("patch_size", "depth", "num_heads")}
    return in_numpy(dit, problem_of(case), **options)


@cases
def test_prediction_equals_the_authors_in_numpy(case):
    params, x, t, label, _ = problem_of(case)
    output = jax.jit(backbone_of(case).apply)(params, x, t, label)
    assert_close(output, reference(case)[0])


@pytest.mark.parametrize("rgb", [1, 4])
def test_a_learned_variance_lies_behind_the_channels_of_the_image(rgb):
    """The authors' unpatchify has the noise, then as many channels of variance."""
    options = dict(CASES["labels and a rectangle"], image_shape=(8, 12, rgb))
    options |= dict(learned_variance=True, unroll=1)
    backbone = create_backbone("dit", **options)
    problem = create_problem(backbone)
    params, x, t, label, _ = problem
    assert backbone.with_variance is not None
    both = jax.jit(backbone.with_variance)(params, x, t, label)
    sizes = {key: options[key] for key in ("patch_size", "depth", "num_heads")}
    assert_close(np.concatenate(both, axis=-1), in_numpy(dit, problem, **sizes)[0])
    np.testing.assert_array_equal(both[0], jax.jit(backbone.apply)(*problem[:4]))


@cases
def test_features_are_the_patch_tokens_after_each_block(case):
    params, x, t, label, _ = problem_of(case)
    features = jax.jit(backbone_of(case).features)(params, x, t, label)
    assert_close(features, reference(case)[1])


def test_a_new_network_predicts_zero_and_its_blocks_change_nothing():
    """What the Zero of adaLN-Zero means."""
    backbone = backbone_of("unconditional")
    _, x, t, label, _ = problem_of("unconditional")
    params = jax.jit(backbone.init)(jax.random.key(0))
    assert not np.any(jax.jit(backbone.apply)(params, x, t, label))
    features = np.asarray(jax.jit(backbone.features)(params, x, t, label))
    assert np.all(features == features[0])
    assert np.any(features)


def test_how_blocks_are_run_changes_nothing():
    case = "labels and a rectangle"
    assert_close(result_of(case, unroll=0, remat=True), result_of(case))


def test_low_precision_stays_close_to_float32():
    case = "labels and a rectangle"
    assert_low_precision_is_close(result_of(case, dtype="mixed"), result_of(case))


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


def test_positions_have_the_columns_first_as_the_authors_do():
    positions = grid_positions(2, 3, 16)
    np.testing.assert_allclose(positions, position_embedding(16, 2, 3), atol=1e-12)
    # Tokens 0 and 3 share a column, 0 and 1 a row.
    np.testing.assert_array_equal(positions[0, :8], positions[3, :8])
    np.testing.assert_array_equal(positions[0, 8:], positions[1, 8:])


SMALL = dict(width=384, depth=12, num_heads=6)
BASE = dict(width=768, depth=12, num_heads=12)
LARGE = dict(width=1024, depth=24, num_heads=16)
XLARGE = dict(width=1152, depth=28, num_heads=16)
CIFAR10 = dict(image_shape=(32, 32, 3))
IMAGENET = dict(
    image_shape=(64, 64, 3), patch_size=4, num_classes=1000, null_label=True
)
LATENT = IMAGENET | dict(image_shape=(32, 32, 4), patch_size=2)
DIG_PAPER = CIFAR10 | dict(width=512, depth=12, num_heads=8)


def published_counts(options):
    """(parameters, MACs) as the literature on DiT has them.

    The fixed table of positions counts among the parameters, attention among the MACs.
    """
    backbone = create_backbone("dit", **options, unroll=1)
    costs = count_costs(backbone)
    rows, cols, _ = backbone.image_shape
    positions = rows * cols // options.get("patch_size", 2) ** 2 * options["width"]
    return costs.params + positions, costs.macs + costs.attention_macs


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        (DIG_PAPER, "57.78"),
        (DIG_PAPER | dict(num_classes=10), "57.78"),
        (DIG_PAPER | dict(patch_size=4), "57.72"),
        (DIG_PAPER | dict(patch_size=8), "57.84"),
        (DIG_PAPER | dict(width=448, depth=10), "37.04"),
        (IMAGENET | dict(width=768, depth=16, num_heads=12), "173.06"),
        (SMALL | CIFAR10 | dict(num_classes=10), "32.57"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_are_those_of_the_dig_paper_to_the_last_digit(options, millions):
    """Tables 1 and 2, whose DiT has a fixed variance as ours has."""
    assert f"{published_counts(options)[0] / 1e6:.2f}" == millions


@pytest.mark.parametrize(
    ("options", "millions", "gigas"),
    [
        (SMALL, 33.0, 6.06),
        (BASE, 130.5, 23.01),
        (LARGE, 458.1, 80.71),
        (XLARGE, 675.1, 118.64),
    ],
    ids=["S/2", "B/2", "L/2", "XL/2"],
)
def test_sizes_are_those_of_the_authors(options, millions, gigas):
    """arXiv:2212.09748, Table 4 and its code: latents of 4 channels, 1000 classes."""
    params, macs = published_counts(options | LATENT)
    # The authors' networks predict a variance too, as many channels again.
    params += 2 * 2 * 4 * (options["width"] + 1)
    assert params / 1e6 == pytest.approx(millions, abs=0.05)
    # Theirs are up to 0.02% more, as if each value in a norm counted once.
    assert macs / 1e9 == pytest.approx(gigas, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(patch_size=3), "divisible by 3, got 8x8.*fit: 1, 2, 4, 8"),
        (dict(num_heads=5), "got 5 heads for width 24.*fit: 1, 2, 3, 4, 6, 8, 12, 24"),
        (dict(width=18), "multiple of 4.*got 18; 20 would do"),
        (dict(null_label=True), "num_classes=0"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        backbone_of("unconditional", **options)
