"""Tokens that are padding change nothing: not what is predicted, nor any derivative."""

import sys
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.models import create_backbone

sys.path.insert(0, str(Path(__file__).parent))
from random_problem import assert_close, create_problem, output_and_gradient

IMAGE = dict(image_shape=(8, 12, 3), patch_size=4, width=16, depth=2, num_heads=2)
CASES = {
    "uvit": dict(name="uvit", **IMAGE),
    "uvit with labels": dict(name="uvit", **IMAGE, num_classes=3),
    "dit": dict(name="dit", **IMAGE),
}
TOKENS = {"uvit": 7, "uvit with labels": 8, "dit": 6}
cases = pytest.mark.parametrize("case", CASES)


def backbone_of(case, padding=0, **options):
    multiple = TOKENS[case] + padding
    return create_backbone(**CASES[case], unroll=1, token_multiple=multiple, **options)


@cache
def problem_of(case):
    return create_problem(backbone_of(case))


@cases
def test_predictions_and_gradients_are_the_same(case):
    """The position table's too, and those of all layers that padding goes through."""
    padded, plain = (
        output_and_gradient(backbone_of(case, padding), problem_of(case))
        for padding in (5, 0)
    )
    # Products of more rows may be divided into other blocks: to rounding.
    assert_close(padded, plain, 1e-5)


@cases
def test_forward_derivatives_are_the_same(case):
    params, x, t, label, direction = problem_of(case)

    def derivative(padding):
        def predict(x, t):
            return backbone_of(case, padding).apply(params, x, t, label)

        tangents = direction, np.ones_like(t)
        return jax.jit(lambda: jax.jvp(predict, (x, t), tangents)[1])()

    assert_close(derivative(5), derivative(0), 1e-5)


@cases
def test_features_leave_padding_out(case):
    params, x, t, label, _ = problem_of(case)
    padded, plain = (
        jax.jit(backbone_of(case, padding).features)(params, x, t, label)
        for padding in (5, 0)
    )
    assert padded.shape[2] == 6  # the patches
    assert_close(padded, plain, 1e-5)


@cases
def test_low_precision_is_padded_alike(case):
    """In bfloat16 a different order of sums may round another way, now and then."""
    params, x, t, label, _ = problem_of(case)
    padded, plain = (
        jax.jit(backbone_of(case, padding, dtype="bfloat16").apply)(params, x, t, label)
        for padding in (5, 0)
    )
    assert_close(padded, plain, 0.02)


@cases
def test_padding_is_what_the_network_is_given(case):
    """Else the tests above compare a program with itself."""
    params, x, t, label, _ = problem_of(case)

    def rows(padding):
        apply = backbone_of(case, padding).apply
        program = str(jax.make_jaxpr(apply)(params, x, t, label))
        return f"[{len(x) * (TOKENS[case] + padding)},16]" in program

    assert rows(5)
    assert rows(0)
