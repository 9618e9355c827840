"""What networks are told of the time: 999 t, or the step of a discrete chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models import create_backbone

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.mark.parametrize(
    ("name", "time", "first"), [("dit", "step_from_0", 1), ("uvit", "step", 0)]
)
def test_a_network_sees_the_step_that_its_weights_were_trained_with(name, time, first):
    """Times that are the same number to the embedding give the same prediction."""
    options = dict(image_shape=SHAPE, width=8, depth=2, num_heads=2, unroll=1)
    continuous, steps = (
        create_backbone(name, **options, time=kind) for kind in ("continuous", time)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) / 3,
        jax.eval_shape(steps.init, jax.random.key(0)),
    )
    x = jnp.asarray(rng.normal(size=(2, *SHAPE)), jnp.float32)
    shown = jnp.asarray([17.0, 640.0])
    expected = jax.jit(continuous.apply)(params, x, shown / 999, None)
    found = jax.jit(steps.apply)(params, x, (shown + first) / 1000, None)
    # A rounding of the time is 3e-5 of a radian at 640; a step is 1.
    np.testing.assert_allclose(found, expected, atol=2e-4)
