"""AdamW, its schedule and its mask, and the average of parameters, against NumPy."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.models import BACKBONES
from dig_jax.options import OptimizerOptions
from dig_jax.training.optimizer import create_optimizer, decay_mask, update_ema

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"


def updates_of(optimizer, params, grads):
    """The updates for a list of gradients, one after the other."""
    state, updates = optimizer.init(params), []
    for grad in grads:
        update, state = optimizer.update(grad, state, params)
        params = jax.tree.map(jnp.add, params, update)
        updates.append(update)
    return updates


def rates_of(num_updates, num_steps, **options):
    """Learning rate of each step: the update of a parameter with a gradient of one."""
    options = OptimizerOptions(weight_decay=0.0, betas=(0.0, 0.0), **options)
    optimizer = create_optimizer(options, num_steps=num_steps)
    params = {"kernel": jnp.zeros(())}
    updates = updates_of(optimizer, params, [{"kernel": jnp.ones(())}] * num_updates)
    return -np.array([update["kernel"] for update in updates])


@pytest.mark.parametrize("name", BACKBONES)
def test_vectors_and_positions_are_not_decayed_and_all_else_is(name):
    config = load_config_file(str(DIGITS))
    options = {"diffit_image": dict(stages=2, window=4)}.get(name, {})
    config.backbone = dict(name=name, width=96, depth=2, num_classes=10, **options)
    shapes = jax.eval_shape(create_experiment(config).backbone.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    decays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): value
        for path, value in jax.tree_util.tree_leaves_with_path(decay_mask(params))
    }
    for path, decayed in decays.items():
        leaf = path.rpartition("/")[2]
        vector = leaf in ("bias", "scale", "position", "fuse_bias", "position_bias")
        # Of DiMR's norms the authors decay the ends, p0 and p1, and not the way.
        assert decayed is not (vector or leaf in ("omega", "beta")), path
    tables = [path for path in decays if path.endswith("label_embedding")]
    assert tables
    assert all(decays[path] for path in tables)
    assert not decays.get("position", False)  # a fixed one is no parameter
    assert len(set(decays.values())) == 2


def test_steps_are_adamw_with_warm_up_in_numpy():
    """Decoupled decay (arXiv:1711.05101, Alg. 2): both parts times the rate."""
    b1, b2, rate, decay, warmup = 0.9, 0.99, 0.1, 0.3, 4
    rng = np.random.default_rng(0)
    start = {"kernel": rng.standard_normal(5), "bias": rng.standard_normal(5)}
    grads = rng.standard_normal((6, 5))
    options = OptimizerOptions(
        learning_rate=rate,
        warmup_steps=warmup,
        weight_decay=decay,
        betas=(b1, b2),
    )
    optimizer = create_optimizer(options, num_steps=100)
    params = jax.tree.map(jnp.asarray, start)
    trees = [{"kernel": jnp.asarray(g), "bias": jnp.asarray(g)} for g in grads]
    updates = updates_of(optimizer, params, trees)
    for name, weight_decay in (("kernel", decay), ("bias", 0.0)):
        x, m, v = start[name], 0.0, 0.0
        for step, grad in enumerate(grads):
            m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
            m_hat, v_hat = m / (1 - b1 ** (step + 1)), v / (1 - b2 ** (step + 1))
            adam = m_hat / (np.sqrt(v_hat) + 1e-8)
            update = -rate * min(step / warmup, 1) * (adam + weight_decay * x)
            # float32; 1 - b2 has lost two of its seven digits.
            np.testing.assert_allclose(
                updates[step][name], update, rtol=1e-4, atol=1e-7
            )
            x = x + update


def test_rate_warms_up_linearly_and_stays():
    rates = rates_of(12, num_steps=10, learning_rate=0.5, warmup_steps=4)
    np.testing.assert_allclose(rates[:5], 0.5 * np.arange(5) / 4, rtol=1e-6)
    np.testing.assert_allclose(rates[5:], 0.5, rtol=1e-6)


def test_rate_falls_as_a_cosine_to_nothing_at_the_last_step():
    rates = rates_of(
        21, num_steps=20, learning_rate=0.5, warmup_steps=4, schedule="cosine"
    )
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(17) / 16))
    # cos in float32, an absolute error of 6e-8 times the rate.
    np.testing.assert_allclose(rates[4:], expected, rtol=1e-5, atol=1e-7)


def test_without_warm_up_the_first_step_has_the_full_rate():
    np.testing.assert_allclose(
        rates_of(2, num_steps=10, learning_rate=0.5, warmup_steps=0), 0.5, rtol=1e-6
    )


def test_a_long_gradient_is_clipped_to_the_norm_and_a_short_one_is_not():
    options = OptimizerOptions(
        learning_rate=1.0, warmup_steps=0, weight_decay=0.0, betas=(0.0, 0.0)
    )
    clipped, free = (
        create_optimizer(replace(options, max_grad_norm=norm), num_steps=10)
        for norm in (5.0, 0.0)
    )
    params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    # AdamW forgets a gradient's length, but its state holds the square.
    long, short = ({"a": 30.0 * s, "b": 40.0 * s} for s in (1.0, 0.05))
    for grads, scale in ((long, 0.1), (short, 1.0)):
        grads = jax.tree.map(jnp.asarray, grads)
        _, state = clipped.update(grads, clipped.init(params), params)
        scaled = jax.tree.map(lambda g: g * scale, grads)  # noqa: B023
        _, expected = free.update(scaled, free.init(params), params)
        moments = jax.tree.leaves(state)
        for got, want in zip(moments, jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_spike_of_the_loss_is_forgotten_where_gradients_are_clipped():
    """A parabola is learned; at one step of 1,000 a gradient of 100 comes in."""
    noise = np.random.default_rng(0).normal(size=(1000, 20))

    def losses(max_grad_norm, spike):
        options = OptimizerOptions(
            learning_rate=0.01,
            warmup_steps=0,
            weight_decay=0.0,
            max_grad_norm=max_grad_norm,
        )
        optimizer = create_optimizer(options, num_steps=1000)

        def step(carry, inputs):
            (params, state), (error, more) = carry, inputs
            gradient = {"kernel": params["kernel"] + 0.1 * error + more}
            update, state = optimizer.update(gradient, state, params)
            params = jax.tree.map(jnp.add, params, update)
            return (params, state), jnp.sum(params["kernel"] ** 2)

        params = {"kernel": jnp.ones(20)}
        spikes = np.zeros(1000)
        spikes[100] = spike
        start = (params, optimizer.init(params))
        return jax.jit(lambda: jax.lax.scan(step, start, (noise, spikes))[1])()

    clean, clipped = losses(1.0, 0.0), losses(1.0, 100.0)
    plain, spoilt = losses(0.0, 0.0), losses(0.0, 100.0)
    np.testing.assert_allclose(clipped, clean, rtol=0.1, atol=0.01)
    # Else the second moment remembers it, and steps stay short.
    assert spoilt[450:600].mean() > 3 * plain[450:600].mean()


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, 1.5)])
def test_betas_outside_of_their_range_are_refused(betas):
    with pytest.raises(InputError, match=r"optimizer\.betas must lie in \[0, 1\)"):
        OptimizerOptions(betas=betas)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_average_warms_up_to_its_decay(decay):
    for step in (0, 1, 17, 10**6):
        one, zero = {"a": jnp.ones(())}, {"a": jnp.zeros(())}
        got = update_ema(one, zero, jnp.int32(step), decay)
        # e + (1 - rate)(p - e) in float32 rounds a value near one.
        expected = min(decay, (1 + step) / (10 + step))
        assert float(got["a"]) == pytest.approx(expected, abs=2e-7)


def test_average_of_a_constant_is_that_constant():
    ema = {"a": jnp.float32(0.1)}
    for step in range(50):
        ema = update_ema(ema, {"a": jnp.float32(0.1)}, jnp.int32(step), 0.9999)
    assert ema["a"] == jnp.float32(0.1)
