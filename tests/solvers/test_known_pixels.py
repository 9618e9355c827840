"""Unknown pixels of Gaussian images, given the known ones: the law is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from correlated_gaussian import DRAWN, SHAPE, Correlated, end_law, known_image
from known_laws import PATHS, solve

from dig_jax.diffusion.completion import explain, make_completing_denoiser
from dig_jax.errors import InputError
from dig_jax.solvers import SOLVERS, create_solver, create_times
from dig_jax.solvers.repaint import jump_path, remembers_nothing, repaint

NUM_KNOWN = int((~DRAWN).sum())


def values():
    """Of the known pixels."""
    return known_image()[~DRAWN]


def completing(law, iterations=NUM_KNOWN):
    return make_completing_denoiser(
        law.denoise,
        jnp.asarray(known_image()),
        jnp.asarray(DRAWN),
        iterations=iterations,
    )


def exact_law(law, t):
    """Mean and covariance of the drawn pixels of x_t, given the known ones of x0."""
    mean, cov = law.given(values())
    alpha, sigma = scales(law.sde, t)
    return alpha * mean, alpha**2 * cov + sigma**2 * np.eye(len(mean))


def scales(sde, t):
    return float(sde.alpha(jnp.asarray(t))), float(sde.sigma(jnp.asarray(t)))


@pytest.mark.parametrize("path_name", PATHS)
def test_the_completing_denoiser_is_the_mean_given_both(path_name):
    """E[x0 | x_t, the known pixels]: given these, x_t says more at the others alone."""
    path = PATHS[path_name]
    with jax.enable_x64(True):
        law = Correlated.create(path.sde)
        mean, cov = law.given(values())
        x = np.random.default_rng(2).normal(size=(4, *SHAPE))
        for t in (0.02, 0.5, 0.98):
            alpha, _ = scales(path.sde, t)
            _, cov_t = exact_law(law, t)
            gain = alpha * cov @ np.linalg.inv(cov_t)
            exact = mean + (x[:, DRAWN] - alpha * mean) @ gain.T
            got = np.asarray(completing(law)(jnp.asarray(x), jnp.asarray(t)))
            # float64, and V_KK has a condition number below 1e3.
            np.testing.assert_allclose(got[:, DRAWN], exact, rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(got[:, ~DRAWN], np.tile(values(), (4, 1)))


def test_what_is_missing_never_grows_for_a_matrix_that_is_not_symmetric():
    """As that of a trained network; the end is the solution, by NumPy's own solver."""
    rng = np.random.default_rng(3)
    matrix = np.eye(6) + 0.3 * rng.normal(size=(6, 6))
    known = ~DRAWN.ravel()
    missing = np.where(DRAWN, 0, rng.normal(size=(2, *SHAPE)))
    part = matrix[np.ix_(known, known)]
    exact = np.linalg.solve(part, missing[:, ~DRAWN].T).T @ matrix[:, known].T
    with jax.enable_x64(True):

        def spread(z):
            return (z.reshape(len(z), -1) @ matrix.T).reshape(z.shape)

        def shift(iterations):
            given = jnp.asarray(missing), jnp.asarray(DRAWN), iterations
            return np.asarray(explain(spread, *given)).reshape(2, -1)

        left = [
            np.linalg.norm((shift(n) - missing.reshape(2, -1))[:, known], axis=1)
            for n in range(1, 5)
        ]
        assert (np.diff(left, axis=0) <= 0).all()
        # As many iterations as known pixels, and more; float64.
        np.testing.assert_allclose(shift(3), exact, rtol=1e-9)
        np.testing.assert_allclose(shift(5), exact, rtol=1e-9)


def affine_end_law(solver, denoise, times, mean, cov):
    """`end_law` of any solver: each pixel of the start and of each noise by itself."""
    size, num_steps = len(mean), len(times) - 1
    units = np.zeros((1 + size * (1 + num_steps), 1 + num_steps, size))
    index = np.arange(len(units) - 1)
    units[1 + index, index // size, index % size] = 1
    units = units.reshape(len(units), 1 + num_steps, *SHAPE).swapaxes(0, 1)
    ends = np.asarray(solve(solver, denoise, times, units[0], units[1:]))
    ends = ends.reshape(len(ends), -1)
    slopes = (ends[1:] - ends[0]).reshape(1 + num_steps, size, size)  # [step, from, to]
    noise = sum(slope.T @ slope for slope in slopes[1:])
    return ends[0] + mean @ slopes[0], slopes[0].T @ cov @ slopes[0] + noise


@pytest.mark.parametrize(
    ("name", "options", "path_name", "order"),
    [
        ("ancestral", {}, "vp_linear", 1),
        ("ddim", {}, "flow", 1),
        ("heun", {}, "edm", 2),
        ("dpm_solver_pp", {"order": 2}, "flow", 2),
        ("unipc", {"order": 2}, "vp_linear", 2),
    ],
)
def test_completions_converge_to_the_exact_law_at_the_solvers_order(
    name, options, path_name, order
):
    """Each kind of solver: random, by the ODE, of several steps, on three paths."""
    path, drawn = PATHS[path_name], DRAWN.ravel()
    errors = []
    with jax.enable_x64(True):
        law = Correlated.create(path.sde)
        # From the exact law at t_start, so that the steps are the only error.
        alpha, sigma = scales(path.sde, path.t_start)
        begin, spread = alpha * known_image().ravel(), sigma**2 * np.eye(6)
        begin[drawn], spread[np.ix_(drawn, drawn)] = exact_law(law, path.t_start)
        mean, cov = exact_law(law, path.t_end)
        for num_steps in (24, 48):
            solver = create_solver(name, path.sde, num_steps, **options)
            bounds = {"t_start": path.t_start, "t_end": path.t_end}
            times = create_times(path.grid, path.sde, num_steps, **bounds)
            got = affine_end_law(solver, completing(law), times, begin, spread)
            errors.append(distance(got, mean, cov))
    (_, few), (of_mean, many) = errors
    # From the exact mean all of these carry it without any error, but for float64's.
    assert of_mean < 1e-12
    # The next term of the error's expansion still bends the line at so few steps.
    assert np.log2(few / many) > order - 0.25


def distance(got, mean, cov):
    """Greatest error of the drawn pixels' mean, and of their covariance."""
    drawn = DRAWN.ravel()
    of_cov = got[1][np.ix_(drawn, drawn)] - cov
    return np.array([np.abs(got[0][drawn] - mean).max(), np.abs(of_cov).max()])


def repainted(law, n, resamplings):
    """Errors of RePaint on n^2 steps with jumps of n, which span 1 / n of the grid."""
    times = create_times("quadratic", law.sde, n * n, t_end=1e-4)
    path = jump_path(n * n, jump=n, resamplings=resamplings)
    plain = create_solver("ddim", law.sde, n * n)
    known = jnp.asarray(known_image()), jnp.asarray(DRAWN)
    solver = repaint(plain, law.sde, *known, path)
    got = end_law(solver, law.denoise, times[path], np.zeros(6), np.eye(6))
    # alpha k + sigma eps without the eps of the last step; 1 - alpha is 5e-6 there.
    np.testing.assert_allclose(got[0][~DRAWN.ravel()], values(), rtol=1e-5)
    return distance(got, *law.given(values()))


def test_repaint_converges_to_the_exact_law_with_its_jumps_alone():
    with jax.enable_x64(True):
        law = Correlated.create(PATHS["vp_linear"].sde)
        errors = [repainted(law, n, resamplings=6 * n) for n in (2, 4, 8)]
        without = [repainted(law, n, resamplings=1) for n in (4, 8)]
    # The span of a jump and its steps halve the error each time; 1.7 leaves room for
    # the next term of its expansion.
    assert (np.divide(errors[:-1], errors[1:]) > 1.7).all()
    assert (errors[-1] < 0.1).all()
    # The covariance has entries up to 0.6, the mean up to 0.8.
    assert max(without[-1]) > 2 * max(errors[-1])
    assert max(without[-1]) > 0.7 * max(without[0])


def test_jumps_are_those_of_the_paper():
    """Its Appendix B for T = 250, jumps of 10 and 10 resamplings: 4570 transitions.

    It goes back by single steps, which together are the one that we take, and has one
    more at the end, from its t = 0 to the image.
    """
    path = jump_path(249, jump=10, resamplings=10)
    moves = np.diff(path)
    assert (path[0], path[-1]) == (0, 249)
    assert {*moves.tolist()} == {1, -10}
    assert np.abs(moves).sum() + 1 == 4570


def test_a_jump_beyond_the_grid_is_refused():
    with pytest.raises(InputError, match=r"fewer than sample\.num_steps=5, got .*=5"):
        jump_path(5, jump=5, resamplings=2)


def test_the_solvers_that_remember_nothing():
    sde = PATHS["vp_linear"].sde
    found = {name for name in SOLVERS if remembers_nothing(create_solver(name, sde, 4))}
    assert found == {"ancestral", "ddim", "euler_maruyama", "ode_euler"}
