"""What every backbone of the table promises."""

import inspect
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.devices.target import compiling_for
from dig_jax.errors import InputError
from dig_jax.models import BACKBONES, create_backbone

backbones = pytest.mark.parametrize("name", sorted(BACKBONES))
# What so small an image needs.
OPTIONS = {
    "dico": dict(stage_depths=(2, 1, 1, 1, 1), unroll=1),
    "diffit_image": dict(stages=2, window=4),
    "dimr": dict(branches=2),
}
# With a middle block or without; on the way down and up.
NUM_BLOCKS = {
    "dico": 2,
    "diffit": 2,
    "diffit_image": 4,
    "dig_relational": 2,
    "dit": 2,
}


def create_tiny(name):
    """A small backbone of that name."""
    # By default there may be more heads than so small a width has room for.
    heads = "num_heads" in inspect.signature(BACKBONES[name]).parameters
    return create_backbone(
        name,
        image_shape=(8, 8, 1),
        num_classes=3,
        width=16,
        depth=2,
        **({"num_heads": 4} if heads else {}),
        **OPTIONS.get(name, {}),
    )


@cache
def tiny(name):
    """(backbone, jitted init, parameters, jitted apply): compiled once for all tests.

    The parameters are away from their start, where some are zero so that others have
    no effect yet.
    """
    backbone = create_tiny(name)
    init = jax.jit(backbone.init)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + np.float32(0.1 * rng.normal(size=leaf.shape)),
        init(jax.random.key(0)),
    )
    return backbone, init, params, jax.jit(backbone.apply)


def batch(seed=0):
    """Images at the ends of time and between, with labels."""
    x = jax.random.normal(jax.random.key(seed), (3, 8, 8, 1))
    return x, jnp.array([0.0, 0.4, 1.0]), jnp.array([2, 0, 1])


@backbones
def test_init_is_a_function_of_its_key(name):
    _, init, _, _ = tiny(name)
    params = init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0)), params)
    other = init(jax.random.key(1))
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@backbones
def test_prediction_is_finite_pure_and_of_the_shape_of_x(name):
    _, _, params, apply = tiny(name)
    x, t, label = batch()
    output = apply(params, x, t, label)
    assert output.shape == x.shape
    assert output.dtype == jnp.float32
    assert np.all(np.isfinite(output))
    np.testing.assert_array_equal(output, apply(params, x, t, label))


@backbones
def test_an_image_does_not_depend_on_its_batch(name):
    _, _, params, apply = tiny(name)
    x, t, label = batch()
    output = apply(params, x, t, label)
    order = np.array([2, 0, 1])
    permuted = apply(params, x[order], t[order], label[order])
    # The place in a batch may change the order in which products are summed.
    np.testing.assert_allclose(permuted, output[order], atol=1e-5)
    others = batch(seed=1)[0].at[0].set(x[0])
    np.testing.assert_allclose(apply(params, others, t, label)[0], output[0], atol=1e-5)


@backbones
def test_time_and_label_and_every_pixel_matter(name):
    _, _, params, apply = tiny(name)
    x, t, label = batch()
    output = apply(params, x, t, label)
    assert np.all(np.any(apply(params, x, 1 - t, label)[::2] != output[::2], (1, 2, 3)))
    assert np.all(np.any(apply(params, x, t, (label + 1) % 3) != output, (1, 2, 3)))
    for row, col in ((0, 0), (3, 4), (7, 7)):
        changed = apply(params, x.at[:, row, col].add(1), t, label)
        assert np.all(np.any(changed != output, (1, 2, 3)))


@backbones
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(name):
    """Each leaf takes part; only rows of labels that do not occur would have none."""
    backbone, _, params, _ = tiny(name)
    x, t, label = batch()

    @jax.jit
    def gradient(params):
        def loss(params):
            outputs = jax.tree.leaves(backbone.outputs(params, x, t, label))
            steps = [8 // output.shape[1] for output in outputs]
            return sum(
                jnp.sum(output * x[:, ::step, ::step])
                for output, step in zip(outputs, steps, strict=True)
            )

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ["dico", "dig_relational", "dimr", "dit"])
def test_a_tpu_computes_the_same_in_other_shapes(name):
    """Blocks that an image's condition modulates, and all their gradients."""
    _, _, params, _ = tiny(name)
    x, t, label = batch()

    def loss(params, x):
        return jnp.sum(jnp.sin(create_tiny(name).apply(params, x, t, label)))

    found = {}
    for platform in ("cpu", "tpu"):
        with compiling_for(platform):
            run = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x).compile()
        found[platform] = jax.tree.leaves(run(params, x))
    for cpu, tpu in zip(*found.values(), strict=True):
        scale = max(np.abs(cpu).max(), 1)
        np.testing.assert_allclose(tpu, cpu, atol=1e-4 * scale)


@backbones
def test_features_are_one_array_of_patch_nodes_for_each_block(name):
    backbone, _, params, _ = tiny(name)
    x, t, label = batch()
    features = jax.eval_shape(backbone.features, params, x, t, label)
    blocks, images, nodes, width = features.shape
    assert blocks == NUM_BLOCKS.get(name, 3)
    assert (images, width) == (3, 16)
    assert nodes >= 1


@backbones
def test_the_finest_output_is_the_prediction(name):
    """What training measures ends with what sampling uses."""
    backbone, _, params, apply = tiny(name)
    x, t, label = batch()
    outputs = jax.tree.leaves(jax.jit(backbone.outputs)(params, x, t, label))
    np.testing.assert_array_equal(outputs[-1], apply(params, x, t, label))
    sides = [output.shape[1] for output in outputs]
    assert sides == sorted(sides)
    assert all(8 % side == 0 for side in sides)


def test_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(InputError, match=f"'resnet'.* {', '.join(sorted(BACKBONES))}"):
        create_backbone("resnet")
