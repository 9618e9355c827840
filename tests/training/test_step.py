"""One step of training: a pure function of state, batch and run key."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.devices.sharding import (
    batch_sharded,
    create_mesh,
    fully_sharded,
    replicated,
)
from dig_jax.experiment import create_experiment
from dig_jax.interfaces import Backbone
from dig_jax.options import MeshOptions, OptimizerOptions
from dig_jax.storage.power_ema import SIGMA_RELS, gamma_of_sigma_rel
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state, make_measure_diversity, make_train_step

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
BATCH = 8


def create_linear_backbone():
    """The smallest network: one matrix, one number for each label and for time."""

    def init(key, places=None):
        kernel = jax.random.normal(key, (64, 64)) / 8
        return {"kernel": kernel, "label": jnp.zeros(11), "time": jnp.ones(())}

    def apply(params, x, t, label):
        # The absolute value so that at 0 the gradient alone is NaN.
        shift = params["label"][label] + jnp.sqrt(params["time"] ** 2) * t
        return (x.reshape(len(x), -1) @ params["kernel"] + shift[:, None]).reshape(
            x.shape
        )

    def features(params, x, t, label):
        return apply(params, x, t, label).reshape(1, len(x), 8, 8)

    return Backbone(init, apply, features, (8, 8, 1), 10, None)


def create_linear_experiment(random_flip=False, label_dropout=0.0):
    config = load_config_file(str(DIGITS))
    config.data.random_flip = random_flip
    experiment = create_experiment(config)
    return replace(
        experiment,
        backbone=create_linear_backbone(),
        objective=replace(experiment.objective, label_dropout=label_dropout),
    )


def create_batch(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 8, 8, 1)).astype(np.uint8)
    return images, rng.integers(0, 10, BATCH).astype(np.int32)


def start(run_seed=1, data=1, fsdp=1, posthoc_ema=False, num_parts=1, **changes):
    """A jitted step and the state before it."""
    experiment = create_linear_experiment(**changes)
    optimizer = create_optimizer(
        OptimizerOptions(learning_rate=0.1, warmup_steps=0), num_steps=100
    )
    mesh = create_mesh(MeshOptions(data, fsdp))
    step = make_train_step(
        experiment,
        optimizer,
        jax.random.key(run_seed),
        0.9,
        mesh=mesh,
        num_parts=num_parts,
    )
    state = create_state(
        experiment, optimizer, jax.random.key(0), posthoc_ema=posthoc_ema
    )
    places, spread = fully_sharded(mesh, state), batch_sharded(mesh)
    jitted = jax.jit(
        step,
        in_shardings=(places, spread, spread),
        out_shardings=(places, replicated(mesh)),
    )
    return jitted, jax.device_put(state, places)


def take_steps(num_steps=3, **options):
    """Arrays after some steps, by name, and the losses on the way."""
    step, state = start(random_flip=True, **options)
    losses = []
    for seed in range(num_steps):
        state, metrics = step(state, *create_batch(seed))
        losses.append(metrics["loss"])
    return {**jax.tree.map(np.asarray, state.params), "losses": np.array(losses)}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def step_and_state():
    return start()


@pytest.fixture(scope="module")
def posthoc_step_and_state():
    return start(posthoc_ema=True)


def test_a_step_moves_parameters_average_and_counts(step_and_state):
    step, before = step_and_state
    after, metrics = step(before, *create_batch())
    assert (after.step, after.bad_steps, metrics["bad_steps"]) == (1, 0, 0)
    for name in before.params:
        assert (after.params[name] != before.params[name]).any()
    # The average's first decay is (1 + 0) / (10 + 0); float32.
    expected = jax.tree.map(lambda e, p: 0.1 * e + 0.9 * p, before.ema, after.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        after.ema,
        expected,
    )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(
    step_and_state, where
):
    step, good = step_and_state
    good, _ = step(good, *create_batch())  # moments and average are not zero
    images, labels = create_batch(1)
    broken = jnp.float32(jnp.nan if where == "loss" else 0)
    bad = good._replace(params={**good.params, "time": broken})
    after, metrics = step(bad, images, labels)
    assert np.isfinite(metrics["loss"]) == (where == "gradient")
    assert not np.isfinite(metrics["grad_norm"])
    assert_same(after, bad._replace(step=bad.step + 1, bad_steps=jnp.int32(1)))
    again, metrics = step(after, images, labels)
    assert (again.step, again.bad_steps, metrics["bad_steps"]) == (3, 2, 2)
    # With the parameters mended, the run goes on and the count starts anew.
    mended, _ = step(again._replace(params=good.params), images, labels)
    assert (mended.step, mended.bad_steps) == (4, 0)
    assert jnp.isfinite(mended.params["kernel"]).all()
    assert (mended.params["kernel"] != good.params["kernel"]).any()


def test_noise_depends_on_the_step_and_the_runs_key_alone(step_and_state):
    step, state = step_and_state
    batch = create_batch()
    after, metrics = step(state, *batch)
    assert_same((after, metrics), step(state, *batch))
    # The same parameters at another step, and with another key, meet other noise.
    _, at_another_step = step(state._replace(step=jnp.int32(1)), *batch)
    other_step, other_state = start(run_seed=2)
    _, with_another_key = other_step(other_state, *batch)
    losses = {float(m["loss"]) for m in (metrics, at_another_step, with_another_key)}
    assert len(losses) == 3


def test_images_are_mirrored_only_where_asked(step_and_state):
    images, labels = create_batch()
    symmetric = np.concatenate([images[:, :, :4], images[:, :, :4][:, :, ::-1]], axis=2)
    plain, state = step_and_state
    flipping, _ = start(random_flip=True)

    def losses_of(images):
        return [float(f(state, images, labels)[1]["loss"]) for f in (plain, flipping)]

    # Mirroring changes nothing in a symmetric image, and the noise is the same; two
    # programs round a float32 sum differently.
    without, with_flips = losses_of(symmetric)
    assert with_flips == pytest.approx(without, rel=1e-5)
    without, with_flips = losses_of(images)
    assert with_flips != pytest.approx(without, rel=1e-3)


def test_losses_by_noise_level_add_up_to_the_loss(step_and_state):
    step, state = step_and_state
    _, metrics = step(state, *create_batch())
    images = metrics["noise_level_images"]
    assert (images.shape, images.sum()) == ((10,), BATCH)
    # The times of the digits are stratified: none of ten levels has two of eight.
    assert images.max() == 1
    assert not np.asarray(metrics["noise_level_loss"])[images == 0].any()
    total = metrics["noise_level_loss"].sum()
    assert float(total) / BATCH == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_labels_are_dropped_only_where_asked_and_nothing_else_changes(step_and_state):
    plain, state = step_and_state
    dropping, _ = start(label_dropout=0.5)
    # At first no label says anything, so the loss shows times and noise alone.
    after, metrics = plain(state, *create_batch())
    other, other_metrics = dropping(state, *create_batch())
    # Two programs round a float32 sum differently.
    assert float(metrics["loss"]) == pytest.approx(
        float(other_metrics["loss"]), rel=1e-6
    )
    assert after.params["label"][10] == 0
    assert other.params["label"][10] != 0
    # Half of the labels still had their say.
    assert 0 < (other.params["label"][:10] != 0).sum() < len(set(create_batch()[1]))


def test_averages_for_post_hoc_ema_are_kept_beside_a_run_that_goes_as_without(
    step_and_state, posthoc_step_and_state
):
    (plain, without), (step, state) = step_and_state, posthoc_step_and_state
    assert without.power_ema == ()
    for seed in range(2):
        without, _ = plain(without, *create_batch(seed))
        state, _ = step(state, *create_batch(seed))
        if seed == 0:
            first = state.params
    # AdamW enlarges the roundings in which the two programs differ where a gradient is
    # near zero.
    for a, b in zip(
        jax.tree.leaves(without),
        jax.tree.leaves(state._replace(power_ema=())),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    # The first of two steps has the weight (1 / 2)^(gamma + 1).
    for ema, sigma_rel in zip(state.power_ema, SIGMA_RELS, strict=True):
        weight = 0.5 ** (gamma_of_sigma_rel(sigma_rel) + 1)
        for name, average in ema.items():
            expected = weight * first[name] + (1 - weight) * state.params[name]
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


def test_a_step_that_is_not_finite_leaves_the_averages_for_post_hoc_ema(
    posthoc_step_and_state,
):
    step, state = posthoc_step_and_state
    state, _ = step(state, *create_batch())
    broken = {**state.params, "time": jnp.float32(jnp.nan)}
    after, _ = step(state._replace(params=broken), *create_batch(1))
    assert_same(after.power_ema, state.power_ema)


def take_steps_on_four_devices():
    return take_steps(data=2, fsdp=2)


def test_four_devices_take_the_same_steps_as_one(on_devices):
    four = on_devices(4, take_steps_on_four_devices)
    one = take_steps()
    assert set(four) == set(one)
    # Sums over the batch in another order: a few roundings of float32. Other noise
    # would change the losses by percents.
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-5)
    for name in four:
        # AdamW divides by a gradient's own size, which enlarges them where it is
        # near zero; three steps of 0.1 without that would differ by 0.1.
        np.testing.assert_allclose(four[name], one[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_parts", [2, 8])
def test_a_batch_in_parts_takes_the_same_steps(num_parts):
    parts, whole = take_steps(num_parts=num_parts), take_steps()
    # As above: the sum over the batch is taken in another order.
    np.testing.assert_allclose(parts["losses"], whole["losses"], rtol=1e-5)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3, atol=1e-3)


def test_diversity_is_measured_on_the_same_noise_every_time():
    experiment = create_linear_experiment()
    _, state = start()
    measure = jax.jit(make_measure_diversity(experiment, jax.random.key(1)))
    images, labels = create_batch()
    first = measure(state, images, labels)
    assert first.shape == (1,)
    assert_same(first, measure(state._replace(step=jnp.int32(9)), images, labels))
