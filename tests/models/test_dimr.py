"""DiMR against an independent implementation, and against its published sizes."""

import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.diffusion import create_sde
from dig_jax.errors import InputError
from dig_jax.models import create_backbone
from dig_jax.models.dimr import time_input

sys.path.insert(0, str(Path(__file__).parent))
from dimr_in_numpy import dimr
from random_problem import (
    assert_close,
    assert_low_precision_is_close,
    create_problem,
    in_numpy,
    output_and_gradient,
)

SMALL = dict(image_shape=(8, 8, 1), width=16, depth=3, branches=2, num_heads=2)
CASES = {
    "released": dict(
        SMALL, num_classes=4, null_label=True, depth=4, branch_depths=(4, 1)
    ),
    "TD-LN, plain MLP, last features": dict(
        image_shape=(8, 12, 3),
        width=16,
        depth=3,
        branches=3,
        num_heads=4,
        norm="td_layer",
        mlp="plain",
        features_up="last",
        kernel_size=3,
    ),
    "no time in blocks": dict(SMALL, norm="rms", branch_widths=(12, 8)),
}
DEPTHS = {
    "released": (4, 1),
    "TD-LN, plain MLP, last features": (3, 2, 2),
    "no time in blocks": (3, 2),
}
cases = pytest.mark.parametrize("case", CASES)


def backbone_of(case, **options):
    # A loop over blocks compiles faster than its unrolling.
    return create_backbone("dimr", **{"unroll": 1, **CASES[case], **options})


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


def sum_of_scales(backbone):
    """The backbone with all its outputs in one image: coarse pixels are repeated."""

    def apply(params, x, t, label):
        total = jnp.zeros_like(x)
        for output in backbone.outputs(params, x, t, label):
            factor = x.shape[1] // output.shape[1]
            total += jnp.repeat(jnp.repeat(output, factor, axis=1), factor, axis=2)
        return total

    return backbone._replace(apply=apply)


@cache
def result_of(case, **options):
    backbone = sum_of_scales(backbone_of(case, **options))
    return output_and_gradient(backbone, problem_of(case))


def reference(case):
    """Estimates by scale and features, in NumPy."""
    problem, options = problem_of(case), CASES[case]
    given = {
        "depths": DEPTHS[case],
        "num_heads": options["num_heads"],
        "features_up": options.get("features_up", "all"),
    }

    def finest(params, image, *others, **options):
        estimates, features = dimr(params, image, *others, **options)
        flat = [np.ravel(one) for one in estimates]
        return np.concatenate(flat), features

    return in_numpy(finest, problem, **given)


@cases
def test_every_scale_and_the_features_equal_the_authors_in_numpy(case):
    params, x, t, label, _ = problem_of(case)
    backbone = backbone_of(case)
    assert backbone.by_scale is not None
    outputs = jax.jit(backbone.by_scale)(params, x, t, label)
    factors = [x.shape[1] // one.shape[1] for one in outputs]
    assert factors == [2**r for r in reversed(range(len(outputs)))]
    flat = jnp.concatenate([one.reshape(len(x), -1) for one in outputs], axis=1)
    estimates, features = reference(case)
    assert_close(flat, estimates)
    assert_close(jax.jit(backbone.features)(params, x, t, label), features)


def test_how_blocks_are_run_changes_nothing():
    case = "released"
    assert_close(result_of(case, unroll=0, remat=True), result_of(case))


def test_low_precision_stays_close_to_float32():
    case = "released"
    assert_low_precision_is_close(result_of(case, dtype="bfloat16"), result_of(case))


def test_a_new_network_does_not_know_the_time():
    backbone = backbone_of("released")
    _, x, t, label, _ = problem_of("released")
    params = jax.jit(backbone.init)(jax.random.key(0))
    apply = jax.jit(backbone.apply)
    np.testing.assert_allclose(
        apply(params, x, t, label), apply(params, x, 1 - t, label), atol=1e-6
    )


def test_gradients_that_stop_leave_coarse_branches_to_their_own_estimates():
    problem = problem_of("released")
    stopped = backbone_of("released", stop_gradient=True)
    _, of_finest = output_and_gradient(stopped, problem)
    assert not any(np.any(g) for g in jax.tree.leaves(of_finest["branch_0"]))
    _, gradient = output_and_gradient(sum_of_scales(stopped), problem)
    assert_close(gradient["branch_1"], result_of("released")[1]["branch_1"])
    assert np.any(gradient["branch_0"]["patch"]["kernel"])


def test_norms_are_told_what_the_time_option_says():
    t = jnp.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(time_input(t, "centered"), [-1, -0.5, 1])
    np.testing.assert_allclose(time_input(t, "t"), t)
    logsnr = np.asarray(create_sde("vp_linear").logsnr(t))
    told = np.asarray(time_input(t, "logsnr"))
    np.testing.assert_allclose(told[1:], logsnr[1:] / 4, rtol=1e-6)
    assert told[0] == pytest.approx(np.log(1e6) / 4)  # without noise: clipped


IMAGENET = dict(num_classes=1000, null_label=True, unroll=1)
M_3R = dict(image_shape=(64, 64, 3), width=768, depth=15, branches=3, num_heads=12)
XL = dict(width=960, depth=39, num_heads=16)


@pytest.mark.parametrize(
    ("options", "params", "macs", "attention"),
    [
        # Parameters, and giga-MACs of an image, of the authors' code; the paper's
        # figures (133M, 284M, 505M, 525M, 1.06B) are these, rounded.
        (M_3R, 132_828_681, "53.531", "1.522"),
        (M_3R | dict(depth=33), 284_138_505, "110.596", "3.348"),
        (
            XL | dict(image_shape=(32, 32, 4), branches=2),
            505_046_408,
            "160.176",
            "4.946",
        ),
        (
            XL | dict(image_shape=(64, 64, 4), branches=3),
            525_027_372,
            "206.072",
            "4.946",
        ),
        (
            dict(
                image_shape=(32, 32, 4), width=1152, depth=57, branches=2, num_heads=16
            ),
            1_056_352_904,
            "331.095",
            "8.674",
        ),
    ],
    ids=["M/3R", "L/3R", "XL/2R", "XL/3R", "G/2R"],
)
def test_sizes_are_the_authors_to_the_last_digit(options, params, macs, attention):
    costs = count_costs(create_backbone("dimr", **options, **IMAGENET))
    assert costs.params == params
    assert f"{(costs.macs + costs.attention_macs) / 1e9:.3f}" == macs
    assert f"{costs.attention_macs / 1e9:.3f}" == attention


@pytest.mark.parametrize(
    ("options", "params"),
    [
        # Table 2, rows 4 to 6, with 1,000 classes and none for "no class".
        (dict(norm="td_layer", mlp="plain"), "153.95"),
        (dict(norm="td_layer"), "132.94"),
        # The one reading that Eq. 1 has in words: the last block's output alone.
        (dict(features_up="last", null_label=True), "112.36"),
    ],
    ids=["plain MLP", "GeGLU", "last features"],
)
def test_the_papers_ablations_have_their_sizes(options, params):
    backbone = create_backbone("dimr", **M_3R, num_classes=1000, unroll=1, **options)
    shapes = jax.eval_shape(backbone.init, jax.random.key(0))
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert f"{total / 1e6:.2f}" == params


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(image_shape=(8, 10, 1), branches=3), "divisible by 4, got 8x10"),
        (dict(width=18, branches=3), "multiple of 4 for 3 branches.*got 18; 20 would"),
        (
            dict(branch_depths=(3,)),
            r"branch_depths.*each of the 2 branches, got \(3,\)",
        ),
        (dict(kernel_size=4), "kernel_size must be odd, got 4"),
        (dict(num_heads=3), "got 3 heads for width 16"),
        (dict(null_label=True), "num_classes=0"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        create_backbone("dimr", **{**SMALL, **options})
