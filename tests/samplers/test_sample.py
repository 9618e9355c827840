"""The loop of every sampler, and what every entry of SOLVERS promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from dig_jax.errors import InputError
from dig_jax.interfaces import Solver
from dig_jax.samplers import SOLVERS, create_solver, sample, uniform_times

KEYS = jax.random.split(jax.random.key(0), 8)


def recording_solver(draws_per_step=1):
    """A solver whose image holds the noise it was given: row 0 where it starts.

    Each next row holds the first row of one draw, in their order.
    """

    def step(denoise, x, row, t, s, noise):
        for index in range(draws_per_step):
            x = jax.lax.dynamic_update_index_in_dim(x, noise(index)[:, 0], row, 1)
            row = row + 1
        return x, row

    return Solver(init=lambda x: 1, step=step, evaluations_per_step=0)


def no_denoiser(x, t):
    raise AssertionError("not called")


def record_noise(keys, num_steps, draws_per_step=1, cols=500):
    """Noise drawn for each key: [key, draw, col]."""
    solver = recording_solver(draws_per_step)
    shape = (1 + num_steps * draws_per_step, cols, 1)
    images = sample(no_denoiser, solver, uniform_times(num_steps), keys, shape)
    return np.asarray(images)[..., 0]


def test_the_last_step_adds_no_noise():
    for num_steps, draws in ((1, 1), (4, 1), (4, 2)):
        noise = record_noise(KEYS, num_steps, draws)
        np.testing.assert_array_equal(noise[:, -draws:], 0)
        assert (noise[:, :-draws] != 0).all()


@pytest.mark.parametrize("draws_per_step", [1, 3])
def test_noise_is_standard_normal_and_independent(draws_per_step):
    """Between images, steps, and draws of one step."""
    noise = record_noise(KEYS, 5, draws_per_step)[:, :-draws_per_step]
    rows = noise.reshape(-1, noise.shape[-1])
    standard_error = 1 / np.sqrt(rows.shape[1])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    # Five standard errors: of up to 5,000 pairs some reach four.
    assert np.abs(correlation).max() < 5 * standard_error
    assert np.abs(rows.mean(axis=1)).max() < 5 * standard_error
    assert np.abs(rows.var(axis=1) - 1).max() < 5 * np.sqrt(2) * standard_error


def test_an_image_depends_on_its_own_key_alone(gaussian):
    solver = create_solver("euler_maruyama", gaussian.sde)

    def draw(keys):
        return sample(gaussian.denoise, solver, uniform_times(10), keys, (4, 4, 3))

    others = jax.random.split(jax.random.key(1), 8)
    images = np.asarray(draw(KEYS))
    np.testing.assert_array_equal(draw(KEYS[::-1])[::-1], images)
    np.testing.assert_array_equal(draw(others.at[3].set(KEYS[3]))[3], images[3])
    assert (images[:, None] != images[None]).any(axis=(2, 3, 4)).sum() == 8 * 7


def test_uniform_times_run_down_in_equal_steps():
    times = uniform_times(250, t_start=0.9, t_end=0.01)
    assert (times[0], times[-1], len(times)) == (0.9, 0.01, 251)
    # Differences of numbers near 1 in float64.
    np.testing.assert_allclose(np.diff(times), -(0.9 - 0.01) / 250, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_no_steps_are_refused(num_steps):
    with pytest.raises(InputError, match=f"at least 1 step, got {num_steps}"):
        uniform_times(num_steps)


@pytest.mark.parametrize(
    ("t_start", "t_end"),
    [(1.0, 1.0), (0.1, 0.2), (1.5, 0.1), (1.0, -0.1), (1.0, float("nan"))],
)
def test_times_that_do_not_run_down_within_the_unit_interval_are_refused(
    t_start, t_end
):
    with pytest.raises(InputError, match=f"t_start={t_start}, t_end={t_end}"):
        uniform_times(10, t_start, t_end)


def test_an_unknown_solver_is_refused_with_the_choices(gaussian):
    with pytest.raises(InputError, match=r"'euler'.*Available: .*euler_maruyama"):
        create_solver("euler", gaussian.sde)


def equations(jaxpr):
    """Every equation of a program, inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda p: isinstance(p, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(inner, core.ClosedJaxpr):
                inner = inner.jaxpr
            if isinstance(inner, core.Jaxpr):
                yield from equations(inner)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_is_one_scan_with_its_evaluations_a_step(name, gaussian):
    solver = create_solver(name, gaussian.sde)

    def run(keys):
        # tan occurs nowhere else: one for each call of the denoiser.
        return sample(
            lambda x, t: jnp.tan(x), solver, uniform_times(7), keys, (2, 2, 1)
        )

    found = list(equations(jax.make_jaxpr(jax.jit(run))(KEYS).jaxpr))
    loops = [e for e in found if e.primitive.name in ("scan", "while")]
    assert [e.primitive.name for e in loops] == ["scan"]
    assert loops[0].params["length"] == 7
    calls = sum(e.primitive.name == "tan" for e in found)
    assert calls == solver.evaluations_per_step


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_draws_gaussian_data_with_its_exact_denoiser(name, gaussian):
    solver = create_solver(name, gaussian.sde)
    keys = jax.random.split(jax.random.key(2), 1000)
    images = sample(gaussian.denoise, solver, uniform_times(200), keys, (4, 4, 1))
    assert images.dtype == jnp.float32
    pixels = np.asarray(images)
    # Five standard errors, and what 200 steps of a first-order solver err by: 0.005.
    tolerance = 5 * gaussian.std / np.sqrt(pixels.size) + 0.005
    assert pixels.mean() == pytest.approx(gaussian.mean, abs=tolerance)
    assert pixels.std() == pytest.approx(gaussian.std, abs=tolerance)
