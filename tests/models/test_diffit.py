"""DiffiT, latent and in image space, against independent implementations and counts."""

import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.models import create_backbone
from dig_jax.models.diffit_image import fourier_embedding
from dig_jax.models.window_attention import Grid, relative_bias

sys.path.insert(0, str(Path(__file__).parent))
from diffit_in_numpy import diffit, diffit_image
from random_problem import (
    assert_close,
    assert_low_precision_is_close,
    create_problem,
    in_numpy,
    output_and_gradient,
)


def fourier(t):
    """The waves of one time, as the network has them (its frequencies are random)."""
    return np.asarray(fourier_embedding(jnp.array([t], jnp.float32), 8)[0], np.float64)


LATENT = {
    "whole grid, learned variance": (
        dict(
            image_shape=(8, 8, 2),
            width=16,
            depth=3,
            num_heads=4,
            num_classes=4,
            null_label=True,
            learned_variance=True,
        ),
        {},
    ),
    "windows in a rectangle": (
        dict(image_shape=(8, 12, 1), width=12, depth=2, num_heads=2, window=2),
        dict(window=2),
    ),
}
IMAGE = {
    "two stages, skips added": (
        dict(image_shape=(8, 8, 3), stages=2, window=4, num_heads=2, depth=2),
        dict(depths=(2, 2)),
    ),
    "three stages, skips concatenated, labels": (
        dict(
            image_shape=(8, 16, 1),
            stages=3,
            stage_depths=(1, 2, 1),
            window=2,
            num_heads=4,
            skips="concat",
            num_classes=3,
            null_label=True,
            stage_widths=(8, 16, 12),
        ),
        dict(depths=(1, 2, 1), skips="concat"),
    ),
    "time in the bias, Fourier": (
        dict(
            image_shape=(8, 8, 1),
            stages=2,
            depth=1,
            window=4,
            num_heads=2,
            time_in="bias",
            time_embedding="fourier",
        ),
        dict(depths=(1, 1), waves=fourier),
    ),
    "time in the MLP": (
        dict(
            image_shape=(8, 8, 1),
            stages=2,
            depth=1,
            window=4,
            num_heads=2,
            time_in="mlp",
        ),
        dict(depths=(1, 1)),
    ),
}
cases = pytest.mark.parametrize("case", [*LATENT, *IMAGE])


def backbone_of(case, **options):
    if case in LATENT:
        given = {"unroll": 1, **LATENT[case][0], **options}
        return create_backbone("diffit", **given)
    return create_backbone("diffit_image", **{"width": 8, **IMAGE[case][0], **options})


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cache
def result_of(case, **options):
    return output_and_gradient(backbone_of(case, **options), problem_of(case))


def reference(case):
    options, given = LATENT.get(case) or IMAGE[case]
    given = {"num_heads": options["num_heads"], **given}
    if case in LATENT:
        network = partial(diffit, patch_size=2, depth=options["depth"], **given)
    else:
        network = partial(diffit_image, window=options["window"], **given)
    return in_numpy(network, problem_of(case))


@cases
def test_prediction_and_features_equal_numpy(case):
    params, x, t, label, _ = problem_of(case)
    backbone = backbone_of(case)
    output, features = reference(case)
    assert_close(result_of(case)[0], output[..., : x.shape[-1]])
    assert_close(jax.jit(backbone.features)(params, x, t, label), features)


def test_the_variance_is_in_the_channels_behind_the_prediction():
    case = "whole grid, learned variance"
    params, x, t, label, _ = problem_of(case)
    backbone = backbone_of(case)
    assert backbone.with_variance is not None
    both = jax.jit(backbone.with_variance)(params, x, t, label)
    assert_close(jnp.concatenate(both, axis=-1), reference(case)[0])


@pytest.mark.parametrize("case", [next(iter(LATENT)), next(iter(IMAGE))])
def test_how_blocks_are_run_changes_nothing(case):
    options = {"unroll": 0} if case in LATENT else {}
    assert_close(result_of(case, remat=True, **options), result_of(case))


@pytest.mark.parametrize("case", [next(iter(LATENT)), next(iter(IMAGE))])
def test_low_precision_stays_close_to_float32(case):
    assert_low_precision_is_close(result_of(case, dtype="bfloat16"), result_of(case))


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 2), (4, 4)])
def test_relative_bias_is_the_tables_entry_for_each_pair(window):
    rows, cols = window
    table = np.random.default_rng(0).normal(size=((2 * rows - 1) * (2 * cols - 1), 3))
    bias = np.asarray(relative_bias(jnp.asarray(table, jnp.float32), window))
    for i in range(rows * cols):
        for j in range(rows * cols):
            row, col = np.array(divmod(i, cols)) - np.array(divmod(j, cols))
            entry = table[(row + rows - 1) * (2 * cols - 1) + col + cols - 1]
            np.testing.assert_allclose(bias[:, i, j], entry, rtol=1e-6)


def test_windows_are_put_back_where_they_were_cut():
    grid = Grid.create(4, 6, 2)
    h = jnp.arange(2 * 24 * 3.0).reshape(48, 3)
    windows = grid.to_windows(h)
    np.testing.assert_array_equal(windows[1, :, 0], h[jnp.array([2, 3, 8, 9]), 0])
    np.testing.assert_array_equal(grid.to_rows(windows), h)


def test_nothing_is_scattered_in_training():
    """Gradients of tables are sums in a fixed order: the same on every run on GPUs."""
    backbone = backbone_of("whole grid, learned variance")
    params, x, t, label, _ = problem_of("whole grid, learned variance")

    def loss(params):
        return jnp.sum(backbone.apply(params, x, t, label) ** 2)

    with compiling_for("gpu"):
        program = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert "scatter" not in program


LATENT_256 = dict(
    image_shape=(32, 32, 4),
    num_classes=1000,
    null_label=True,
    learned_variance=True,
    unroll=1,
)


@pytest.mark.parametrize(
    ("options", "params", "macs", "attention"),
    [
        # The authors' code; 561M and 114 giga-MACs without attention as published.
        (dict(), 561_035_232, "118.507", "4.228"),
        (dict(depth=30), 600_906_752, "126.971", "4.530"),
        (dict(image_shape=(64, 64, 4)), 562_382_816, "524.424", "67.646"),
    ],
    ids=["256", "256, depth 30", "512"],
)
def test_latent_sizes_are_the_authors_to_the_last_digit(
    options, params, macs, attention
):
    costs = count_costs(create_backbone("diffit", **{**LATENT_256, **options}))
    assert costs.params == params
    assert f"{(costs.macs + costs.attention_macs) / 1e9:.3f}" == macs
    assert f"{costs.attention_macs / 1e9:.3f}" == attention


FFHQ = dict(image_shape=(64, 64, 3), stage_depths=(1, 2, 2, 2))
CIFAR = dict(image_shape=(32, 32, 3), stages=3, window=4)


@pytest.mark.parametrize(
    ("options", "params", "macs"),
    [
        # An independent count of the same reading: nothing is published.
        (FFHQ, "22.2", "14.4"),
        (FFHQ | dict(skips="concat"), "23.8", "16.0"),
        (FFHQ | dict(time_width=256), "19.8", "14.4"),
        (CIFAR, "15.0", "4.0"),
        (CIFAR | dict(skips="concat"), "15.9", "4.3"),
        (CIFAR | dict(depth=4), "27.8", "7.0"),
    ],
    ids=str,
)
def test_image_sizes_are_those_of_the_reading(options, params, macs):
    costs = count_costs(create_backbone("diffit_image", **options))
    assert f"{costs.params / 1e6:.1f}" == params
    assert f"{(costs.macs + costs.attention_macs) / 1e9:.1f}" == macs


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("diffit", dict(window=3), r"Windows of 3x3 must tile.*4x4.*fit: 1, 2, 4"),
        ("diffit", dict(width=18, num_heads=2), "multiple of 4.*got 18; 20 would do"),
        ("diffit", dict(num_heads=5), "got 5 heads for width 16"),
        ("diffit", dict(patch_size=3), "divisible by 3, got 8x8"),
        ("diffit_image", dict(stages=5), "divisible by 16, got 8x8"),
        ("diffit_image", dict(stages=2, window=8), "8x8 must tile the grid of 4x4"),
        ("diffit_image", dict(stages=2, window=4, stage_widths=(8,)), "stage_widths"),
        (
            "diffit_image",
            dict(stages=2, window=4, width=18),
            "got 4 heads for width 18",
        ),
        (
            "diffit_image",
            dict(stages=1, window=4, width=132),
            "multiple of its 32 groups.*got 132",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    small = dict(image_shape=(8, 8, 1), width=16, depth=2, num_heads=4)
    with pytest.raises(InputError, match=message):
        create_backbone(name, **{**small, **options})
