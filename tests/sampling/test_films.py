"""Films of the denoising, and images between two noises and two classes."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dig_jax.diffusion import create_sde
from dig_jax.errors import InputError
from dig_jax.interfaces import Solver
from dig_jax.run import load
from dig_jax.sampling.between import make_mixed_denoiser, noise_weights
from dig_jax.sampling.grid import sample_grid
from dig_jax.solvers import SOLVERS, create_solver, sample, solver_times, uniform_times
from dig_jax.solvers.sample import NoiseMix, Watch, sample_path

KEYS = jax.random.split(jax.random.key(0), 3)
SHAPE = (4, 4, 1)
SDE = create_sde("vp_linear")


def denoise_gaussian(mean, std):
    """E[x0 | x_t] where every pixel of x0 is N(mean, std^2) by itself."""

    def denoise(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])[:, None, None, None]
        alpha, sigma = SDE.alpha(t), SDE.sigma(t)
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    return denoise


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_path_ends_where_sampling_does_and_tells_its_estimates(name):
    solver, denoise = create_solver(name, SDE, 6), denoise_gaussian(0.3, 0.5)
    times = solver_times("uniform", SDE, solver)
    given = (denoise, solver, times, KEYS, SHAPE)
    steps = tuple(range(len(times)))
    drawn = jax.jit(lambda: sample(*given, sde=SDE))()
    path, estimates = (
        jax.jit(lambda w=watch: sample_path(*given, sde=SDE, watch=w))()
        for watch in (Watch(steps), Watch(steps, estimates=True))
    )
    np.testing.assert_array_equal(path[-1], drawn)
    np.testing.assert_array_equal(estimates[-1], drawn)
    for k in steps[:-1]:
        expected = denoise(path[k], jnp.float32(times[k]))
        np.testing.assert_allclose(estimates[k], expected, atol=1e-5)


def test_the_frames_that_are_kept_are_those_of_the_steps():
    solver = create_solver("ddim", SDE, 6)
    given = (denoise_gaussian(0.3, 0.5), solver, uniform_times(6), KEYS, SHAPE)
    every, few = (
        sample_path(*given, sde=SDE, watch=Watch(steps))
        for steps in (tuple(range(7)), (1, 4, 6))
    )
    np.testing.assert_array_equal(few, every[np.array([1, 4, 6])])


@pytest.mark.parametrize("steps", [(), (0, 2), (2, 1, 3), (-1, 3)])
def test_steps_that_cannot_be_watched_are_named(steps):
    solver = create_solver("ddim", SDE, 3)
    given = (denoise_gaussian(0.0, 1.0), solver, uniform_times(3), KEYS, SHAPE)
    with pytest.raises(InputError, match="must ascend"):
        sample_path(*given, sde=SDE, watch=Watch(steps))


def draw_noise(keys, mix=None):
    """The noise that images start from, and that of the first of two steps."""

    def step(denoise, x, state, t, s, noise):
        return noise(), state

    solver = Solver(init=lambda x: (), step=step, evaluations=(1, 1))
    given = (denoise_gaussian(0.0, 1.0), solver, uniform_times(2), keys, SHAPE)
    flow, watch = create_sde("flow"), Watch((0, 1, 2))
    return np.asarray(sample_path(*given, sde=flow, watch=watch, mix=mix))[:2]


def test_all_noise_lies_between_that_of_two_keys():
    others = jax.random.split(jax.random.key(1), 3)
    weights = noise_weights(np.array([0.0, 0.25, 1.0]))
    first, second = draw_noise(KEYS), draw_noise(others)
    between = draw_noise(KEYS, NoiseMix(others, weights))
    np.testing.assert_array_equal(between[:, 0], first[:, 0])
    np.testing.assert_array_equal(between[:, 2], second[:, 2])
    expected = np.cos(np.pi / 8) * first[:, 1] + np.sin(np.pi / 8) * second[:, 1]
    np.testing.assert_allclose(between[:, 1], expected, atol=1e-6)
    # Independent standard normal noises, so that the law stays.
    np.testing.assert_allclose((weights.astype(float) ** 2).sum(axis=1), 1, atol=1e-6)


def test_between_two_gaussians_of_one_width_is_the_gaussian_between():
    # p^(1 - a) q^a is N((1 - a) m + a n, std^2) at every noise level.
    part = jnp.array([0.0, 0.25, 1.0])
    mixed = make_mixed_denoiser(
        denoise_gaussian(-0.5, 0.7), denoise_gaussian(0.9, 0.7), part
    )
    x = jax.random.normal(KEYS[0], (3, *SHAPE))
    for t in (0.1, 0.9):
        mean = (-0.5 * (1 - part) + 0.9 * part)[:, None, None, None]
        expected = denoise_gaussian(mean, 0.7)(x, jnp.float32(t))
        np.testing.assert_allclose(mixed(x, jnp.float32(t)), expected, atol=1e-6)


@pytest.fixture(scope="module")
def run(trained_runs, without_optimizations):
    return load(trained_runs.workdir())


@pytest.mark.parametrize("estimates", [False, True])
def test_the_last_frame_of_a_film_is_what_sample_draws(run, estimates):
    film = run.film(3, labels=("3", 5), seed=7, num_steps=3, estimates=estimates)
    drawn = run.sample(3, labels=("3", 5), seed=7, num_steps=3)
    assert film.frames.shape == (4, 3, 8, 8, 1)
    assert film.labels.tolist() == [3, 5, 3]
    np.testing.assert_array_equal(film.images, drawn)


def test_a_film_is_a_gif_of_all_frames_and_ends_on_the_images(run, tmp_path):
    film = run.film(2, labels=4, num_steps=3, num_frames=3)
    assert np.all(np.diff(film.times) < 0)
    film.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as gif:
        assert getattr(gif, "n_frames", 1) == len(film.frames) == 3
        gif.seek(2)
        shown = np.asarray(gif.convert("RGB"))
    expected = sample_grid(film.images, film.labels, class_names=film.class_names)
    np.testing.assert_array_equal(shown, expected)
    assert "data:image/gif;base64," in film._repr_html_()


def test_a_notebook_shows_the_images_that_are_drawn(run, tmp_path):
    picture = run.show(2, labels="3", num_steps=3)
    np.testing.assert_array_equal(picture.images, run.sample(2, labels=3, num_steps=3))
    with Image.open(io.BytesIO(picture._repr_png_())) as png:
        np.testing.assert_array_equal(np.asarray(png), picture.pixels)
    picture.save(tmp_path / "shown.png")
    assert (tmp_path / "shown.png").is_file()


def test_an_interpolation_ends_on_what_sample_draws(run):
    both = run.interpolate(4, labels=(3, 8), seeds=(4, 9), num_steps=3)
    classes = run.interpolate(3, labels=("3", "8"), seeds=4, num_steps=3)
    noises = run.interpolate(3, labels=3, seeds=(4, 9), num_steps=3)
    three, eight, other_three = (
        run.sample(1, labels=label, seed=seed, num_steps=3)[0]
        for label, seed in ((3, 4), (8, 9), (3, 9))
    )
    for found in (both, classes, noises):
        np.testing.assert_array_equal(found.images[0], three)
    np.testing.assert_array_equal(both.images[-1], eight)
    np.testing.assert_array_equal(noises.images[-1], other_three)
    assert len(np.unique(both.images, axis=0)) == 4


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda run: run.film(num_frames=1), "num_frames must be"),
        (
            lambda run: run.film(num_frames=5, num_steps=3, solver="ddim"),
            r"from 2 to 4 \(3 steps of ddim, and the noise before them\), got 5",
        ),
        (lambda run: run.film(num_steps=3).save("film.mp4"), "NAME.gif"),
        (lambda run: run.interpolate(1), "at least two"),
        (lambda run: run.interpolate(seeds=(0, -1)), "seeds must be whole numbers"),
        (lambda run: run.interpolate(seeds=(-1, 2)), r"^seeds must be .* \(-1, 2\)"),
        (lambda run: run.film(num_steps=3).save("no/film.gif"), "no folder no to save"),
        (lambda run: run.interpolate(labels=(1, 2, 3)), "labels must be one or two"),
        (lambda run: run.interpolate(labels=(1, "cat")), "got 'cat'"),
        (lambda run: run.show(labels=12), "0 to 9"),
    ],
)
def test_what_cannot_be_shown_is_named(run, draw, said):
    with pytest.raises(InputError, match=said):
        draw(run)
