"""Attention against its formula in NumPy, its derivatives, and padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.attention import SelfAttention, dot_product_attention

# 17 tokens: cuDNN and tilings prefer even numbers, U-ViT has odd ones.
SHAPE = (2, 17, 3, 8)


def in_numpy(q, k, v):
    """softmax(q k^T / sqrt(channels)) v, one image and head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    for image, head in np.ndindex(q.shape[0], q.shape[2]):
        logits = q[image, :, head] @ k[image, :, head].T / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out[image, :, head] = weights @ v[image, :, head]
    return out


def random_heads(rng, size=1.0):
    return tuple(jnp.asarray(size * rng.normal(size=(3, *SHAPE)), jnp.float32))


def attend(q, k, v):
    return dot_product_attention(q, k, v, "float32")


def test_attention_equals_its_formula(rng):
    heads = random_heads(rng)
    np.testing.assert_allclose(attend(*heads), in_numpy(*heads), atol=2e-6)


def test_large_logits_give_the_value_of_the_largest(rng):
    """Logits of some 1e4, beyond exp in float32."""
    heads = random_heads(rng, size=60.0)
    # The logits' rounding is 1e4 * 6e-8, which is relative in the weights.
    np.testing.assert_allclose(attend(*heads), in_numpy(*heads), atol=0.5)
    assert np.all(np.isfinite(attend(*heads)))


def test_derivatives_both_ways_equal_finite_differences(rng):
    heads, tangents = random_heads(rng), random_heads(rng)
    cotangent = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    step = 1e-5
    ahead, behind = (
        in_numpy(
            *(
                np.float64(x) + sign * step * np.float64(dx)
                for x, dx in zip(heads, tangents, strict=True)
            )
        )
        for sign in (1, -1)
    )
    expected = (ahead - behind) / (2 * step)
    _, forward = jax.jvp(attend, heads, tangents)
    np.testing.assert_allclose(forward, expected, atol=2e-5)
    _, vjp = jax.vjp(attend, *heads)
    backward = sum(
        np.vdot(g, dx) for g, dx in zip(vjp(cotangent), tangents, strict=True)
    )
    assert backward == pytest.approx(np.vdot(cotangent, expected), abs=1e-3)


@pytest.mark.parametrize(
    ("dtype", "kept_in"), [("mixed", "float32"), ("bfloat16", "bfloat16")]
)
def test_bfloat16_products_have_a_float32_softmax(rng, dtype, kept_in):
    """With operands that are bfloat16 numbers, only weights and results are rounded."""
    q, k, v = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in random_heads(rng, 3))
    out = dot_product_attention(q, k, v, dtype)
    assert out.dtype == jnp.dtype(kept_in)
    # Logits of some 30 rounded to bfloat16 would move the weights by 6%; weights and
    # results rounded to 2^-9 move results, of some 10, by 0.04.
    np.testing.assert_allclose(
        out.astype(jnp.float32), in_numpy(q, k, v), atol=10 * 2.0**-8
    )


def test_float32_products_and_their_gradients_keep_full_precision(rng):
    """On TPUs and GPUs the default would be less."""
    products = []

    def collect(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                products.append(equation.params["precision"])
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
            ):
                if hasattr(inner, "eqns"):
                    collect(getattr(inner, "jaxpr", inner))

    gradient = jax.grad(lambda *heads: jnp.sum(attend(*heads)), argnums=(0, 1, 2))
    collect(jax.make_jaxpr(gradient)(*random_heads(rng)).jaxpr)
    highest = jax.lax.Precision.HIGHEST
    assert products == [(highest, highest)] * len(products)
    assert len(products) == 6  # two, and two gradients of each


def test_tokens_have_no_order_and_images_do_not_meet(rng):
    layer = SelfAttention(num_tokens=5, num_heads=2)
    h = jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    params = layer.init(jax.random.key(0), h.reshape(-1, 8))

    @jax.jit
    def run(h):
        out: jax.Array = layer.apply(params, h.reshape(-1, 8))  # type: ignore[assignment]
        return out.reshape(h.shape)

    out, order = run(h), np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(run(h[:, order]), out[:, order], atol=1e-6)
    np.testing.assert_allclose(run(h.at[1].add(1.0))[::2], out[::2], atol=1e-6)


def padded_tail_ignored(heads, tails, **options: Any):
    """Attention of the tokens before the tails, as a function of those alone."""

    def attend(*heads):
        parts = [
            jnp.concatenate([x, t], axis=1) for x, t in zip(heads, tails, strict=True)
        ]
        q, k, v = parts
        out = dot_product_attention(q, k, v, padding=tails[0].shape[1], **options)
        return out[:, : heads[0].shape[1]]

    return attend(*heads), attend


def random_tails(rng, padding):
    shape = (3, SHAPE[0], padding, *SHAPE[2:])
    return tuple(jnp.asarray(9 * rng.normal(size=shape), jnp.float32))


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_padding_changes_no_bit_and_no_derivative(rng, dtype):
    """Plain products cut padding's keys off: the same sums in the same order."""
    heads, tangents, tails = random_heads(rng), random_heads(rng), random_tails(rng, 7)

    def without(q, k, v):
        return dot_product_attention(q, k, v, dtype)

    out, attend = padded_tail_ignored(heads, tails, dtype=dtype)
    np.testing.assert_array_equal(out, without(*heads))
    ahead = jax.jvp(attend, heads, tangents)[1]
    np.testing.assert_array_equal(ahead, jax.jvp(without, heads, tangents)[1])
    cotangent = jnp.asarray(rng.normal(size=SHAPE), out.dtype)
    found = jax.vjp(attend, *heads)[1](cotangent)
    expected = jax.vjp(without, *heads)[1](cotangent)
    for ours, theirs in zip(found, expected, strict=True):
        # Sums over queries have padding's zeros among them: another order.
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_padding_gets_no_gradient(rng):
    heads, tails = random_heads(rng), random_tails(rng, 7)

    def loss(tails):
        return jnp.sum(padded_tail_ignored(heads, tails, dtype="float32")[0] ** 2)

    for gradient in jax.grad(loss)(tails):
        np.testing.assert_array_equal(gradient, 0)


def test_what_cudnn_is_asked_for_is_the_same_attention(rng, monkeypatch):
    """By JAX's own plain products, which read the same arguments."""
    heads = tuple(x.astype(jnp.bfloat16).astype("float32") for x in random_heads(rng))
    tails, original = random_tails(rng, 7), jax.nn.dot_product_attention

    def plain(*heads, implementation, **options):
        assert implementation == "cudnn"
        return original(*heads, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", plain)
    out, attend = padded_tail_ignored(heads, tails, dtype="mixed", kernel="cudnn")
    # Weights and results are rounded to bfloat16.
    np.testing.assert_allclose(out, in_numpy(*heads), atol=4 * 2.0**-8)
    gradient = jax.grad(lambda *heads: jnp.sum(attend(*heads) ** 2), argnums=(0, 1, 2))
    plainly = jax.grad(
        lambda q, k, v: jnp.sum(dot_product_attention(q, k, v, "mixed") ** 2),
        argnums=(0, 1, 2),
    )
    for ours, theirs in zip(gradient(*heads), plainly(*heads), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02 * np.max(np.abs(theirs)))
