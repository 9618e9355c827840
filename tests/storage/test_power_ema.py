"""Power-function averages and what is put together from them, against their integrals.

The parameters of a step hold from the step before to that step, so the average is the
integral of the profile times a function that is constant between steps: the weight of
step tau of t is (tau^(gamma + 1) - (tau - 1)^(gamma + 1)) / t^(gamma + 1).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.errors import InputError
from dig_jax.storage.power_ema import (
    SIGMA_RELS,
    gamma_of_sigma_rel,
    solve_weights,
    start_power_ema,
    update_power_ema,
)

WIDTHS = [0.02, 0.07, 0.15, 0.2]


def average(trajectory, sigma_rel, step=None):
    """The average of the first steps of a trajectory [step, ...], in float64."""
    step = len(trajectory) if step is None else step
    edges = (np.arange(step + 1) / step) ** (gamma_of_sigma_rel(sigma_rel) + 1)
    return np.tensordot(np.diff(edges), trajectory[:step], axes=1)


def create_trajectory(num_steps, width=20):
    """Parameters that settle while they wander, far from zero."""
    rng = np.random.default_rng(0)
    walk = rng.standard_normal((num_steps, width)).cumsum(axis=0) / np.sqrt(num_steps)
    settling = np.exp(-5 * np.arange(num_steps) / num_steps)[:, None]
    return 3 + walk + settling * rng.standard_normal(width)


def stored_averages(trajectory, every):
    """(step, sigma_rel, average) as a run stores them."""
    return [
        (step, sigma_rel, average(trajectory, sigma_rel, step))
        for step in range(every, len(trajectory) + 1, every)
        for sigma_rel in SIGMA_RELS
    ]


def combine(stored, step, sigma_rel):
    steps, sigma_rels, averages = map(np.array, zip(*stored, strict=True))
    weights, error = solve_weights(steps, sigma_rels, step, sigma_rel)
    return np.tensordot(weights, averages, axes=1), error


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.25])
def test_a_profile_has_the_width_it_is_named_by(sigma_rel):
    gamma = gamma_of_sigma_rel(sigma_rel)
    width = (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5  # Eq. 3
    assert width == pytest.approx(sigma_rel, rel=1e-10)
    # Which is the standard deviation of the profile, here as a sum of thin slices.
    edges = np.linspace(0, 1, 100_001)
    weight, time = np.diff(edges ** (gamma + 1)), (edges[1:] + edges[:-1]) / 2
    std = np.sqrt(weight @ time**2 - (weight @ time) ** 2)
    assert std == pytest.approx(sigma_rel, rel=1e-6)


def test_updates_are_the_integral_over_the_profile():
    trajectory = create_trajectory(300)
    update = jax.jit(update_power_ema)
    power_ema = start_power_ema({"a": jnp.full(20, 1e3)})  # has no part in the average
    for step, values in enumerate(trajectory, start=1):
        params = {"a": jnp.asarray(values, jnp.float32)}
        power_ema = update(power_ema, params, jnp.int32(step))
        if step in (1, 2, 17, 300):
            for ema, sigma_rel in zip(power_ema, SIGMA_RELS, strict=True):
                expected = average(trajectory, sigma_rel, step)
                # Some ten roundings of float32, of a value of 1000 in the first step.
                rtol = 1e-4 if step == 1 else 1e-5
                np.testing.assert_allclose(ema["a"], expected, rtol=rtol)


def test_the_average_of_a_linear_trajectory_lies_at_the_profiles_mean():
    num_steps = 10_000
    for sigma_rel in SIGMA_RELS:
        gamma = gamma_of_sigma_rel(sigma_rel)
        mean = average(np.arange(1.0, num_steps + 1), sigma_rel) / num_steps
        # The mean of tau / t under the profile; a step is held until its end.
        assert mean == pytest.approx((gamma + 1) / (gamma + 2), abs=1 / num_steps)


def test_a_run_that_keeps_none_updates_none():
    assert update_power_ema((), {"a": jnp.ones(3)}, jnp.int32(1)) == ()


@pytest.mark.parametrize("sigma_rel", SIGMA_RELS)
@pytest.mark.parametrize("step", [40, 320])
def test_a_stored_average_is_itself(sigma_rel, step):
    trajectory = create_trajectory(step)
    made, error = combine(stored_averages(trajectory, 20), step, sigma_rel)
    # float64, times the condition of the system: 1e5.
    np.testing.assert_allclose(made, average(trajectory, sigma_rel), rtol=1e-10)
    assert error < 1e-6


@pytest.mark.parametrize("sigma_rel", WIDTHS)
def test_another_width_is_made_the_better_the_more_is_stored(sigma_rel):
    trajectory = create_trajectory(3200)
    expected = average(trajectory, sigma_rel)
    spread = trajectory.std(axis=0).mean()
    errors, profile_errors = [], []
    for every in (400, 100, 32):
        made, profile_error = combine(
            stored_averages(trajectory, every), 3200, sigma_rel
        )
        errors.append(np.abs(made - expected).max() / spread)
        profile_errors.append(profile_error)
    assert errors[0] > errors[1] > errors[2]
    assert profile_errors[0] > profile_errors[1] > profile_errors[2]
    # A hundred snapshots: next to nothing against how far the parameters move.
    assert errors[2] < 2e-3


def test_an_average_can_end_before_the_run_does():
    trajectory = create_trajectory(2000)
    stored = [s for s in stored_averages(trajectory, 50) if s[0] <= 1500]
    made, _ = combine(stored, 1500, 0.07)
    np.testing.assert_allclose(made, average(trajectory, 0.07, 1500), rtol=1e-4)


def test_a_constant_stays_what_it_is_however_little_is_stored():
    for num_snapshots in (1, 2, 5):
        stored = stored_averages(np.full((num_snapshots * 10, 1), 7.0), 10)
        for sigma_rel in WIDTHS:
            made, _ = combine(stored, num_snapshots * 10, sigma_rel)
            np.testing.assert_allclose(made, 7.0, rtol=1e-12)


def test_the_reported_error_is_the_distance_between_the_profiles():
    num_steps, sigma_rel, steps = 20_000, 0.15, [5_000, 12_000, 20_000]
    time = (np.arange(num_steps) + 0.5) / num_steps

    def profile(width, length):
        gamma = gamma_of_sigma_rel(width)
        inside = time <= length
        return np.where(inside, (gamma + 1) * time**gamma / length ** (gamma + 1), 0)

    pairs = [(step, width) for step in steps for width in SIGMA_RELS]
    steps_of, widths = map(np.array, zip(*pairs, strict=True))
    weights, error = solve_weights(steps_of, widths, num_steps, sigma_rel)
    profiles = np.array([profile(width, step / num_steps) for step, width in pairs])
    wanted = profile(sigma_rel, 1)
    distance = np.linalg.norm(weights @ profiles - wanted) / np.linalg.norm(wanted)
    assert error == pytest.approx(distance, rel=1e-3)  # the sum's slices
    # And no other weights of sum one come nearer.
    rng = np.random.default_rng(0)
    for change in 1e-3 * rng.standard_normal((20, len(weights))):
        other = weights + change - change.mean()
        assert np.linalg.norm(other @ profiles - wanted) > distance * np.linalg.norm(
            wanted
        )


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.005, 0.3, float("nan")])
def test_a_width_out_of_range_is_refused(sigma_rel):
    with pytest.raises(InputError, match=r"0\.01 to 0\.25, got"):
        gamma_of_sigma_rel(sigma_rel)
