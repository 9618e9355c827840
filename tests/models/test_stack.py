"""Blocks one after the other: the same through a loop, unrolled and recomputed."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.stack import stack_blocks, stacked, unstack

WIDTH, LENGTH, ROWS = 3, 4, 5


class Block(nn.Module):
    """carry to tanh(carry W) + input, and what came out as output."""

    scale: float

    @nn.compact
    def __call__(self, carry, given):
        kernel = self.param("kernel", nn.initializers.normal(), (WIDTH, WIDTH))
        carry = self.scale * jnp.tanh(carry @ kernel) + given
        return carry, 2 * carry


class Stack(nn.Module):
    """The stack alone, as part of a network."""

    options: Any

    @nn.compact
    def __call__(self, h, inputs):
        blocks = stack_blocks(
            self, Block, (0.5,), name="blocks", length=LENGTH, **self.options
        )
        h, outputs = blocks(h, inputs)
        return h, stacked(outputs)


def in_numpy(kernels, h, inputs, reverse, broadcast):
    outputs = np.empty((LENGTH, *h.shape))
    for i in range(LENGTH)[:: -1 if reverse else 1]:
        h = 0.5 * np.tanh(h @ kernels[i]) + (inputs if broadcast else inputs[i])
        outputs[i] = 2 * h
    return h, outputs


@pytest.mark.parametrize(
    ("unroll", "remat", "reverse", "broadcast"),
    [*itertools.product((0, 1, 2), (False, True), (False, True), (False, True))],
)
def test_blocks_run_in_order(rng, unroll, remat, reverse, broadcast):
    kernels = rng.normal(size=(LENGTH, WIDTH, WIDTH))
    h = rng.normal(size=(ROWS, WIDTH))
    inputs = rng.normal(size=(LENGTH, ROWS, WIDTH))[0 if broadcast else slice(None)]
    order = dict(reverse=reverse, broadcast=broadcast)
    module = Stack(dict(unroll=unroll, remat=remat, **order))
    params = {"params": {"blocks": {"kernel": jnp.asarray(kernels, jnp.float32)}}}
    shapes = jax.eval_shape(module.init, jax.random.key(0), h, inputs)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)

    apply: Any = module.apply
    out = jax.jit(apply)(params, h, inputs)
    expected = in_numpy(kernels, h, inputs, **order)
    # Float32 through four products of three terms.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), out, expected
    )

    def loss(params):
        h_out, outputs = apply(params, h, inputs)
        return jnp.sum(h_out**2) + jnp.sum(jnp.sin(outputs))

    slope = jax.jit(jax.grad(loss))(params)["params"]["blocks"]["kernel"]
    direction, step = rng.normal(size=kernels.shape), 1e-5

    def loss_along(distance):
        h_out, outputs = in_numpy(kernels + distance * direction, h, inputs, **order)
        return np.sum(h_out**2) + np.sum(np.sin(outputs))

    difference = (loss_along(step) - loss_along(-step)) / (2 * step)
    np.testing.assert_allclose(np.sum(slope * direction), difference, rtol=1e-4)


@pytest.mark.parametrize("order", [range(3), range(3)[::-1]])
def test_gradients_are_put_into_the_stack_from_the_last_block_on(order):
    """So that each is written, and what it is made of is given free, as it is known."""
    params = jnp.arange(6.0).reshape(3, 2)

    def loss(params):
        total = 0.0
        for i in order:
            total = jnp.sum(jnp.sin(unstack(params, order)[i])) * (i + 1) + total
        return total

    np.testing.assert_allclose(
        jax.grad(loss)(params),
        jnp.cos(params) * jnp.array([[1], [2], [3]]),
        rtol=1e-6,
    )

    def cotangent(*parts):
        return jax.vjp(lambda p: unstack(p, order), params)[1](list(parts))[0]

    *_, equation = jax.make_jaxpr(cotangent)(*params).eqns
    written = [
        int(inner.invars[2].val)
        for inner in jax.make_jaxpr(equation.params["call"])(*params).eqns
        # An operation, or newer jax's function of a like name around it.
        if "dynamic_update" in inner.params.get("name", inner.primitive.name)
    ]
    assert written == list(order)[::-1]
