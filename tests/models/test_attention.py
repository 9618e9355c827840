"""Attention against its formula in NumPy, its derivatives, and what it runs on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.costs.summary import count_costs
from dig_jax.errors import InputError
from dig_jax.models import create_backbone
from dig_jax.models.attention import (
    SelfAttention,
    choose_attention,
    dot_product_attention,
)

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


def test_attention_is_chosen_by_platform_dtype_and_heads(monkeypatch):
    assert choose_attention("auto", "mixed", 64, 8) == "xla"  # on a CPU
    cases = "needs an NVIDIA GPU.*got cpu, mixed and 8 channels.*auto and xla"
    with pytest.raises(InputError, match=cases):
        choose_attention("cudnn", "mixed", 64, 8)
    with pytest.raises(InputError, match=r"got 6 heads for width 64.*fit: 1, 2, 4, 8"):
        choose_attention("auto", "mixed", 64, 6)

    pretend_to_have_cudnn(monkeypatch)
    assert choose_attention("auto", "mixed", 64, 8) == "cudnn"
    assert choose_attention("auto", "bfloat16", 64, 8) == "cudnn"
    assert choose_attention("auto", "float32", 64, 8) == "xla"
    assert choose_attention("xla", "mixed", 64, 8) == "xla"
    # Heads of 12 channels, which cuDNN refuses.
    assert choose_attention("auto", "mixed", 48, 4) == "xla"
    with pytest.raises(InputError, match="12 channels"):
        choose_attention("cudnn", "mixed", 48, 4)


@pytest.mark.parametrize("name", ["uvit", "dit"])
def test_a_network_costs_the_same_with_cudnn(monkeypatch, name):
    def costs(attention):
        return count_costs(
            create_backbone(
                name,
                image_shape=(8, 8, 3),
                width=32,
                depth=2,
                num_heads=4,
                dtype="mixed",
                unroll=1,
                attention=attention,
            )
        )

    expected = costs("xla")
    pretend_to_have_cudnn(monkeypatch)
    assert costs("cudnn") == expected
    assert expected.attention_macs > 0


def pretend_to_have_cudnn(monkeypatch):
    """Enough for tracing; nothing of it can run on a CPU."""
    inside = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    if not hasattr(inside, "check_cudnn_version"):
        pytest.skip("this jax asks for its cuDNN in another place")
    monkeypatch.setattr(inside, "check_cudnn_version", lambda: 91500)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
