"""Losses by noise level, of batches and of held-out images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_network import PREDICTIONS, SDE, X0, as_prediction, predict_x0

from dig_jax.diffusion import (
    Objective,
    loss_by_noise_level,
    noise_level_losses,
)
from dig_jax.diffusion.prediction import per_image


def test_losses_by_noise_level_are_a_weighted_histogram(rng):
    t, loss = rng.uniform(size=(2, 200)).astype(np.float32)
    t[:2] = 0.0, 1.0
    sums, counts = loss_by_noise_level(jnp.asarray(loss), jnp.asarray(t))
    expected, _ = np.histogram(t, bins=10, range=(0, 1), weights=loss)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    np.testing.assert_array_equal(counts, np.histogram(t, bins=10, range=(0, 1))[0])


def test_a_loss_that_is_not_finite_stays_at_its_noise_level():
    loss, t = jnp.asarray([1.0, jnp.nan, 2.0]), jnp.asarray([0.1, 0.5, 0.9])
    sums, counts = loss_by_noise_level(loss, t, num_bins=3)
    np.testing.assert_array_equal(sums, [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(counts, 1)


def held_out(apply, objective, **options):
    key = jax.random.key(11)
    return noise_level_losses(
        apply, 0.5, SDE, key, X0, None, objective=objective, **options
    )


def test_held_out_losses_are_at_their_noise_levels():
    """A network that is wrong by t shows its time in its error."""
    losses = held_out(
        lambda params, x, t, label: X0 + per_image(t),
        Objective("x0"),
        num_bins=4,
        loss_spaces=("x0",),
    )
    t = np.sort(np.sqrt(losses["x0"]), axis=1)  # [bin, batch]
    stratum = np.arange(64) / 64
    for level, times in enumerate(t):
        assert ((times >= level / 4) & (times < (level + 1) / 4)).all()
        spread = 4 * times - level - stratum
        # One in each of 64 parts of the level, to within a root's rounding.
        assert (spread > -1e-5).all()
        assert (spread < 1 / 64 + 1e-5).all()


@pytest.mark.parametrize(("batch_size", "seen"), [(24, 22), (64, 64), (5, 5), (1, 1)])
def test_held_out_images_are_seen_a_part_at_a_time(batch_size, seen):
    """Of the same times and noise; of 64 images in equal parts some come twice."""
    sizes = set()

    def network(params, x, t, label):
        sizes.add(len(x))
        return predict_x0(params, x, t)

    parts = held_out(network, Objective("x0"), batch_size=batch_size)
    assert sizes == {seen}
    whole = held_out(network, Objective("x0"))
    for space in ("x0", "eps"):
        np.testing.assert_allclose(parts[space], whole[space], rtol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_held_out_losses_do_not_depend_on_how_a_network_says_it(prediction):
    own, x0 = Objective(prediction), Objective("x0")
    got = held_out(as_prediction(own, predict_x0), own)
    expected = held_out(as_prediction(x0, predict_x0), x0)
    for space in ("x0", "eps"):
        # float32, with divisions by sigma = 0.02 and alpha = 0.007 on the way.
        np.testing.assert_allclose(got[space], expected[space], rtol=1e-3, atol=1e-6)


def test_held_out_losses_are_the_same_under_jit():
    def losses(key):
        return noise_level_losses(
            lambda params, x, t, label: predict_x0(params, x, t),
            0.5,
            SDE,
            key,
            X0,
            None,
            objective=Objective("x0"),
        )

    key = jax.random.key(0)
    plain, jitted = losses(key), jax.jit(losses)(key)
    assert plain["eps"].shape == (10, 64)
    np.testing.assert_allclose(plain["eps"], jitted["eps"], rtol=1e-4)
