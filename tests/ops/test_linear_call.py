"""A linear function with a transpose of its own goes through every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.ops.linear_call import linear_call


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


def test_trees_go_in_and_come_out(rng):
    """Residual a; x = {p, q} to [a p, q - p]; its transpose adds up over the list."""
    a, p, q = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)

    def forward(a, x):
        return [a * x["p"], x["q"] - x["p"]]

    def backward(a, g):
        return {"p": a * g[0] - g[1], "q": g[1]}

    def loss(call, a, x):
        first, second = call(a, x)
        return jnp.sum(jnp.sin(first) * second)

    def ours(a, x):
        return linear_call(forward, backward, (a,), x)

    x = {"p": p, "q": q}
    for of_all in (
        lambda f: jax.jvp(f, (a, x), (2 * a, {"p": q, "q": p})),
        lambda f: jax.vjp(f, a, x)[1]([p, q]),
        lambda f: jax.vmap(f)(two(a), jax.tree.map(two, x)),
        lambda f: jax.vmap(f, (None, {"p": 0, "q": None}))(a, {"p": two(p), "q": q}),
        lambda f: jax.vjp(lambda a, x: f(a, x)[1], a, x)[1](q),  # one result unused
        lambda f: jax.hessian(lambda a, x: loss(f, a, x), (0, 1))(a, x),
    ):
        jax.tree.map(
            lambda got, expected: np.testing.assert_allclose(got, expected, atol=1e-5),
            of_all(ours),
            of_all(forward),
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
