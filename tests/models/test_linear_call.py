"""A linear function with a transpose of its own goes through every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.linear_call import linear_call


def product(matrix, x):
    return linear_call(lambda m, v: m @ v, lambda m, g: m.T @ g, (jnp.sin(matrix),), x)


def plain(matrix, x):
    return jnp.sin(matrix) @ x


def squares(function):
    return lambda matrix, x: jnp.sum(jnp.square(function(matrix, x)))


def mapped(function):
    return lambda matrix, x: jnp.sum(
        jax.vmap(squares(function), (0, None))(jnp.stack([matrix, 2 * matrix]), x)
    )


def two(value):
    return jnp.stack([value, 3 * value])


TRANSFORMED = {
    "value": lambda f, m, x: f(m, x),
    "jvp": lambda f, m, x: jax.jvp(f, (m, x), (2 * m, x + 1)),
    "gradient in x": lambda f, m, x: jax.grad(squares(f), 1)(m, x),
    "gradient in the residual": lambda f, m, x: jax.grad(squares(f), 0)(m, x),
    "hessian": lambda f, m, x: jax.hessian(squares(f), (0, 1))(m, x),
    "map over x": lambda f, m, x: jax.vmap(f, (None, 1))(m, two(x).T),
    "gradients of a map": lambda f, m, x: jax.grad(mapped(f), (0, 1))(m, x),
    "map of gradients over x": lambda f, m, x: jax.vmap(
        jax.grad(squares(f), (0, 1)), (None, 0)
    )(m, two(x)),
    "map of gradients over both": lambda f, m, x: jax.vmap(
        jax.grad(squares(f), (0, 1))
    )(two(m), two(x)),
    "remat": lambda f, m, x: jax.grad(jax.checkpoint(squares(f)), (0, 1))(m, x),
    "linearize": lambda f, m, x: jax.linearize(f, m, x)[1](m + 1, 2 * x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_it_is_the_function_that_it_calls(rng, name, run):
    matrix = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    x = jnp.asarray(rng.normal(size=4), jnp.float32)

    def transformed(function):
        return run(lambda m, v: TRANSFORMED[name](function, m, v))(matrix, x)

    jax.tree.map(
        # A few roundings of sums of four products.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        transformed(product),
        transformed(plain),
    )


def test_reverse_mode_runs_the_transpose_that_is_given():
    def seven(x):
        return linear_call(lambda v: 2 * v, lambda g: 7 * g, (), x)

    x = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.vjp(seven, x)[1](jnp.ones(3))[0], [7, 7, 7])
    np.testing.assert_array_equal(jax.jvp(seven, (x,), (x,))[1], 2 * x)
    per_value = jax.vmap(jax.grad(seven))(x)
    np.testing.assert_array_equal(per_value, [7, 7, 7])
    # The transpose of the transpose is the function.
    back = jax.linear_transpose(lambda g: jax.linear_transpose(seven, x)(g)[0], x)
    np.testing.assert_array_equal(back(x)[0], 2 * x)
