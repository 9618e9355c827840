import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.diffusion import SDES, create_sde
from dig_jax.errors import InputError
from dig_jax.solvers import (
    SOLVERS,
    TIME_GRIDS,
    create_solver,
    create_times,
    default_time_grid,
    solver_times,
    uniform_times,
)

EVEN = sorted(set(TIME_GRIDS) - {"respaced"})


def even_on(grid, sde, times):
    """What a grid makes equal steps in."""
    with jax.enable_x64(True):
        ratio = np.exp(-np.asarray(sde.logsnr(jnp.asarray(times))) / 2)
    return {
        "uniform": times,
        "quadratic": np.sqrt(times),
        "logsnr": np.log(ratio),
        "karras": ratio ** (1 / 7),
    }[grid]


@pytest.mark.parametrize("sde_name", SDES)
@pytest.mark.parametrize("grid", EVEN)
def test_every_grid_makes_equal_steps_between_exact_ends(grid, sde_name):
    sde = create_sde(sde_name)
    times = create_times(grid, sde, 20, t_start=0.97, t_end=0.003)
    assert times.dtype == np.float64
    assert (len(times), times[0], times[-1]) == (21, 0.97, 0.003)
    steps = np.diff(even_on(grid, sde, times))
    # float64, through the inverse of logSNR and back.
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)


def test_on_edm_equal_steps_in_t_are_those_of_karras():
    """sigma_i of arXiv:2206.00364, Eq. 5, which that SDE's t is linear in."""
    sde = create_sde("edm")
    times = create_times("karras", sde, 17, t_end=0.0)
    np.testing.assert_allclose(times, uniform_times(17, t_end=0.0), atol=1e-12)


@pytest.mark.parametrize("grid", TIME_GRIDS)
def test_times_are_numbers_inside_a_trace(grid):
    sde = create_sde("vp_discrete")
    t_end = 0.0 if grid == "respaced" else 1e-3
    inside = []

    @jax.jit
    def trace(x):
        inside.append(create_times(grid, sde, 9, t_end=t_end))
        return x

    trace(0.0)
    np.testing.assert_array_equal(inside[0], create_times(grid, sde, 9, t_end=t_end))


@pytest.mark.parametrize("num_steps", [1000, 250, 7])
def test_respaced_steps_are_those_of_adm(num_steps):
    """Its space_timesteps adds a stride up, and rounds; it counts from 0."""
    place, kept = 0.0, []
    for _ in range(num_steps):
        kept.append(round(place))
        place += 999 / (num_steps - 1)
    sde = create_sde("vp_discrete")
    times = create_times("respaced", sde, num_steps, t_end=0.0)
    np.testing.assert_array_equal(times[:-1], (np.array(kept[::-1]) + 1) / 1000)
    assert times[-1] == 0


def test_respacing_needs_a_chain_and_enough_of_its_steps():
    with pytest.raises(InputError, match="sde vp_discrete, or another grid"):
        create_times("respaced", create_sde("vp_linear"), 10, t_end=0.0)
    for num_steps, t_end in ((1001, 0.0), (10, 1e-3)):
        with pytest.raises(InputError, match=r"at most 1000 steps .*below 1/1000"):
            create_times("respaced", create_sde("vp_discrete"), num_steps, t_end=t_end)


def test_a_solver_may_have_its_evaluations_spaced():
    sde = create_sde("vp_discrete")
    steps, calls = (
        solver_times("uniform", sde, create_solver("dpm_solver", sde, 9, **options))
        for options in ({}, {"inner_times": "uniform"})
    )
    np.testing.assert_allclose(steps, np.linspace(1, 1e-3, 5), rtol=1e-12)
    # Steps of 3, 3, 2 and 1 evaluations.
    grid = np.linspace(1, 1e-3, 10)
    np.testing.assert_allclose(calls, grid[[0, 3, 6, 8, 9]], rtol=1e-12)


def test_the_default_grid_suits_solver_and_path():
    vp, flow = create_sde("vp_linear"), create_sde("flow")
    assert {default_time_grid(name, vp) for name in SOLVERS} == {"logsnr", "uniform"}
    assert default_time_grid("dpm_solver", vp) == "logsnr"
    assert default_time_grid("dpm_solver", flow) == "uniform"
    assert default_time_grid("dpm_solver", flow, t_start=0.999) == "logsnr"
    assert default_time_grid("dpm_solver", vp, t_end=0.0) == "uniform"
    assert default_time_grid("euler_maruyama", vp) == "uniform"
    with pytest.raises(InputError, match=r"'rk4'.*Available: .*heun"):
        default_time_grid("rk4", vp)


def test_an_unknown_grid_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'cosine'.*Available: karras, logsnr"):
        create_times("cosine", create_sde("flow"), 5)


@pytest.mark.parametrize("grid", ["logsnr", "karras"])
def test_an_infinite_logsnr_is_refused_with_a_way_out(grid):
    flow = create_sde("flow")
    with pytest.raises(InputError, match=r"infinite at t_start=1\.0: .*t_start=0\.999"):
        create_times(grid, flow, 5)
    with pytest.raises(InputError, match=r"infinite at t_end=0\.0: .*t_end=0\.001"):
        create_times(grid, flow, 5, t_start=0.999, t_end=0.0)


def test_times_that_float32_cannot_tell_apart_are_refused():
    with pytest.raises(InputError, match="fewer steps"):
        create_times("uniform", create_sde("flow"), 1000, t_end=0.99999)


def test_uniform_times_run_down_in_equal_steps():
    times = uniform_times(250, t_start=0.9, t_end=0.01)
    assert (times[0], times[-1], len(times)) == (0.9, 0.01, 251)
    # Differences of numbers near 1 in float64.
    np.testing.assert_allclose(np.diff(times), -(0.9 - 0.01) / 250, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_no_steps_are_refused(num_steps):
    for grid in TIME_GRIDS:
        with pytest.raises(InputError, match=f"at least 1 step, got {num_steps}"):
            create_times(grid, create_sde("vp_linear"), num_steps)


@pytest.mark.parametrize(
    ("t_start", "t_end"),
    [(1.0, 1.0), (0.1, 0.2), (1.5, 0.1), (1.0, -0.1), (1.0, float("nan"))],
)
def test_times_that_do_not_run_down_within_the_unit_interval_are_refused(
    t_start, t_end
):
    for grid in TIME_GRIDS:
        with pytest.raises(InputError, match=f"t_start={t_start}, t_end={t_end}"):
            create_times(
                grid, create_sde("vp_linear"), 10, t_start=t_start, t_end=t_end
            )
