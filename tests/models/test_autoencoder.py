"""The autoencoder against an independent implementation, and its published size."""

import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.models.autoencoder import (
    AutoencoderOptions,
    create_autoencoder,
    latents_of,
)

sys.path.insert(0, str(Path(__file__).parent))
import autoencoder_in_numpy
from random_problem import assert_close

OPTIONS = AutoencoderOptions(widths=(4, 8, 8), blocks=1, groups=2)
SIZE = dict(levels=3, blocks=1, groups=2)


@cache
def problem():
    """(autoencoder, random parameters, images, latents)."""
    autoencoder = create_autoencoder(OPTIONS)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        return np.float32(1 + 0.2 * noise if path[-1].key == "scale" else 0.15 * noise)

    shapes = jax.eval_shape(autoencoder.init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    images = rng.uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32)
    latents = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    return autoencoder, params, images, latents


def in_numpy(network, params, batch):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return np.stack([network(params, np.float64(one), **SIZE) for one in batch])


def test_moments_equal_numpy():
    autoencoder, params, images, _ = problem()
    moments = jax.jit(autoencoder.encode)(params, images)
    expected = in_numpy(autoencoder_in_numpy.encode, params["encoder"], images)
    assert_close(moments, expected)


def test_images_equal_numpy():
    autoencoder, params, _, latents = problem()
    images = jax.jit(autoencoder.decode)(params, latents)
    expected = in_numpy(autoencoder_in_numpy.decode, params["decoder"], latents)
    assert_close(images, expected)


def test_latents_have_the_moments_that_the_encoder_says():
    mean, log_variance = 0.7, -1.3
    shape = (1, 100, 100, 1)
    moments = jnp.concatenate(
        [jnp.full(shape, mean), jnp.full(shape, log_variance)], axis=-1
    )
    latents = latents_of(moments, jax.random.normal(jax.random.key(0), shape))
    # 10,000 draws: their mean and deviation are known to 1 and 0.7 per cent.
    deviation = 0.18215 * np.exp(log_variance / 2)
    assert latents.mean() == pytest.approx(0.18215 * mean, abs=0.04 * deviation)
    assert latents.std() == pytest.approx(deviation, rel=0.03)
    np.testing.assert_allclose(latents_of(moments), 0.18215 * mean, rtol=1e-6)


def test_log_variances_are_clipped_as_published():
    moments = jnp.array([0.0, 100.0]).reshape(1, 1, 1, 2)
    latents = latents_of(moments, jnp.ones((1, 1, 1, 1)))
    np.testing.assert_allclose(latents.item(), 0.18215 * np.exp(10), rtol=1e-6)


def test_kl_f8_has_its_published_size():
    shapes = jax.eval_shape(create_autoencoder().init, jax.random.key(0))
    sizes = {
        f"{half}/{'quant' if 'quant' in name else 'rest'}": 0
        for half, modules in shapes.items()
        for name in modules
    }
    for half, modules in shapes.items():
        for name, module in modules.items():
            kind = "quant" if "quant" in name else "rest"
            sizes[f"{half}/{kind}"] += sum(x.size for x in jax.tree.leaves(module))
    assert sizes == {
        "encoder/rest": 34_163_592,
        "encoder/quant": 72,
        "decoder/rest": 49_490_179,
        "decoder/quant": 20,
    }
    assert sum(sizes.values()) == 83_653_863


def test_sides_that_do_not_fit_are_refused():
    autoencoder, params, images, _ = problem()
    with pytest.raises(InputError, match="multiples of 4, got 6x12"):
        autoencoder.encode(params, jnp.asarray(images[:, :6]))
    with pytest.raises(InputError, match=r"multiples of its 32 groups, got \(48,\)"):
        AutoencoderOptions(widths=(48,))
