"""The loop of every sampler, and what every entry of SOLVERS promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from dig_jax.diffusion import create_sde
from dig_jax.errors import InputError
from dig_jax.interfaces import Solver
from dig_jax.solvers import (
    SOLVERS,
    create_solver,
    create_times,
    default_time_grid,
    sample,
    uniform_times,
)

KEYS = jax.random.split(jax.random.key(0), 8)


def recording_solver(num_steps, draws_per_step):
    """A solver whose image holds the noise it was given: row 0 where it starts.

    Each next row holds the first row of one draw, in their order.
    """

    def step(denoise, x, row, t, s, noise):
        for index in range(draws_per_step):
            x = jax.lax.dynamic_update_index_in_dim(x, noise(index)[:, 0], row, 1)
            row = row + 1
        return x, row

    return Solver(init=lambda x: 1, step=step, evaluations=(0,) * num_steps)


def no_denoiser(x, t):
    raise AssertionError("not called")


def record_noise(keys, num_steps, draws_per_step=1, cols=500):
    """Noise drawn for each key: [key, draw, col]."""
    solver = recording_solver(num_steps, draws_per_step)
    shape = (1 + num_steps * draws_per_step, cols, 1)
    times = uniform_times(num_steps)
    images = sample(no_denoiser, solver, times, keys, shape, sde=create_sde("flow"))
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
    sde, times = gaussian.sde, uniform_times(10)
    solver = create_solver("euler_maruyama", sde, 10)

    def draw(keys):
        return sample(gaussian.denoise, solver, times, keys, (4, 4, 3), sde=sde)

    others = jax.random.split(jax.random.key(1), 8)
    images = np.asarray(draw(KEYS))
    np.testing.assert_array_equal(draw(KEYS[::-1])[::-1], images)
    np.testing.assert_array_equal(draw(others.at[3].set(KEYS[3]))[3], images[3])
    assert (images[:, None] != images[None]).any(axis=(2, 3, 4)).sum() == 8 * 7


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_steps", [0, -3])
def test_no_steps_are_refused(name, num_steps, gaussian):
    with pytest.raises(InputError, match=f"num_steps must be .*, got {num_steps}"):
        create_solver(name, gaussian.sde, num_steps)


def test_an_unknown_solver_is_refused_with_the_choices(gaussian):
    with pytest.raises(InputError, match=r"'euler'.*Available: .*euler_maruyama"):
        create_solver("euler", gaussian.sde, 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("euler_maruyama", {"eta": 0.0}, r"euler_maruyama takes no option 'eta'.*none"),
        ("unipc", {"eta": 0.0}, r"no option 'eta'.*order, variant, lower_order_final"),
        ("dpm_solver", {"order": 4}, r"sample\.order must be 1, 2 or 3, got 4"),
        ("unipc", {"variant": "bh3"}, r"sample\.variant must be 'bh1' or 'bh2'"),
        (
            "ddim",
            {"eta": 1.5},
            r"sample\.eta must be less than or equal to 1, got 1\.5",
        ),
        ("ddim", {"eta": -0.1}, r"sample\.eta must be greater than or equal to 0"),
    ],
)
def test_options_that_do_not_work_are_refused(name, options, message, gaussian):
    with pytest.raises(InputError, match=message):
        create_solver(name, gaussian.sde, 10, **options)


@pytest.mark.parametrize("name", ["dpm_solver_pp", "unipc"])
def test_fewer_steps_than_the_order_are_refused(name, gaussian):
    with pytest.raises(InputError, match="of order 3 needs at least 3 steps, got 2"):
        create_solver(name, gaussian.sde, 2, order=3)


def test_another_number_of_times_than_of_steps_is_refused(gaussian):
    solver = create_solver("dpm_solver", gaussian.sde, 50)
    with pytest.raises(InputError, match=r"takes 17 steps .* got 51 times"):
        sample(
            no_denoiser,
            solver,
            uniform_times(50),
            KEYS,
            (4, 4, 1),
            sde=gaussian.sde,
        )


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
def test_every_solver_is_one_scan(name, gaussian):
    sde = gaussian.sde
    solver = create_solver(name, sde, 9)
    times = uniform_times(len(solver.evaluations))

    def run(keys):
        return sample(gaussian.denoise, solver, times, keys, (2, 2, 1), sde=sde)

    found = list(equations(jax.make_jaxpr(jax.jit(run))(KEYS).jaxpr))
    loops = [e for e in found if e.primitive.name in ("scan", "while")]
    assert [e.primitive.name for e in loops] == ["scan"]
    assert loops[0].params["length"] == len(solver.evaluations)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_step_calls_the_denoiser_as_often_as_the_solver_says(name, gaussian):
    solver = create_solver(name, gaussian.sde, 9)
    times = uniform_times(len(solver.evaluations))
    calls = []

    def denoise(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return gaussian.denoise(x, t)

    jax.jit(
        lambda keys: sample(denoise, solver, times, keys, (2, 2, 1), sde=gaussian.sde)
    )(KEYS)
    jax.effects_barrier()
    assert len(calls) == sum(solver.evaluations)
    # The first call of a step is at its start, and times only fall.
    firsts = np.cumsum((0, *solver.evaluations))[:-1]
    np.testing.assert_array_equal(
        np.sort(calls)[::-1][firsts], times[:-1].astype(np.float32)
    )


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_draws_gaussian_data_with_its_exact_denoiser(name, gaussian):
    check_gaussian(name, gaussian, t_end=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_runs_from_pure_noise_to_pure_data(name, gaussian):
    """On the straight path, where logSNR is infinite at both ends."""
    check_gaussian(name, gaussian._replace(sde=create_sde("flow")), t_end=0.0)


def check_gaussian(name, law, t_end):
    solver = create_solver(name, law.sde, 200)
    grid = default_time_grid(name, law.sde, t_end=t_end)
    times = create_times(grid, law.sde, len(solver.evaluations), t_end=t_end)
    keys = jax.random.split(jax.random.key(2), 1000)
    images = jax.jit(
        lambda keys: sample(law.denoise, solver, times, keys, (4, 4, 1), sde=law.sde)
    )(keys)
    assert images.dtype == jnp.float32
    pixels = np.asarray(images)
    # Five standard errors, and what 200 steps of a first-order solver err by: 0.005.
    tolerance = 5 * law.std / np.sqrt(pixels.size) + 0.005
    assert pixels.mean() == pytest.approx(law.mean, abs=tolerance)
    assert pixels.std() == pytest.approx(law.std, abs=tolerance)


@pytest.mark.parametrize(("t_start", "std"), [(1.0, 80.0), (0.5, None)])
def test_sampling_starts_from_the_noise_of_the_sde(t_start, std):
    """Of standard deviation prior_std at t = 1, sigma(t) before."""
    sde = create_sde("edm")
    std = float(sde.sigma(jnp.asarray(t_start))) if std is None else std
    solver = Solver(lambda x: (), lambda d, x, state, t, s, noise: (x, state), (0,))
    shape = (1, 500, 1)
    noise = sample(no_denoiser, solver, uniform_times(1, t_start), KEYS, shape, sde=sde)
    unit = sample(
        no_denoiser, solver, uniform_times(1), KEYS, shape, sde=create_sde("flow")
    )
    # One product in float32.
    np.testing.assert_allclose(noise, std * np.asarray(unit), rtol=1e-6)
