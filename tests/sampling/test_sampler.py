"""Drawing images: what is drawn depends on the seed alone."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import load_config_file
from dig_jax.devices.sharding import create_mesh
from dig_jax.diffusion import make_denoiser
from dig_jax.errors import InputError, NonFiniteError
from dig_jax.experiment import create_experiment
from dig_jax.interfaces import Backbone
from dig_jax.options import MeshOptions, SampleOptions
from dig_jax.reporting.images import image_grid
from dig_jax.sampling.choices import check_sample_options
from dig_jax.sampling.grid import sample_grid
from dig_jax.sampling.groups import GROUP_SIZE
from dig_jax.sampling.guided import Guide
from dig_jax.sampling.label_rules import choose_labels
from dig_jax.sampling.sampler import Sampler
from dig_jax.solvers import create_solver, create_times, sample

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"


def create_mlp_backbone(num_classes, null_label=False):
    """The smallest network that multiplies matrices and looks at its label."""
    width = 37  # Odd, so that blocks of a matrix product have ragged ends.

    def init(key, places=None):
        keys = jax.random.split(key, 3)
        return {
            "into": jax.random.normal(keys[0], (64, width)) / 8,
            "out": jax.random.normal(keys[1], (width, 64)) / 6,
            "label": jax.random.normal(keys[2], (num_classes + 1, width)),
        }

    def apply(params, x, t, label):
        h = x.reshape(len(x), -1) @ params["into"] + t[:, None]
        h = h if label is None else h + params["label"][label]
        return (jax.nn.gelu(h) @ params["out"]).reshape(x.shape)

    def features(params, x, t, label):
        raise AssertionError("not called")

    return Backbone(init, apply, features, (8, 8, 1), num_classes, None, null_label)


def create_mlp_experiment(num_classes=10, null_label=False):
    experiment = create_experiment(load_config_file(str(DIGITS)))
    backbone = create_mlp_backbone(num_classes, null_label)
    return replace(experiment, backbone=backbone)


def create_sampler(experiment, num_devices=1, guide=None, **options):
    """A sampler, and parameters to draw with."""
    options = SampleOptions(**{"num_steps": 5, "num_images": 20, **options})
    mesh = create_mesh(MeshOptions(num_devices))
    sampler = Sampler(experiment, options, mesh, guide)
    return sampler, experiment.backbone.init(jax.random.key(0))


def draw(experiment, num_devices=1, guide=None, **options):
    sampler, params = create_sampler(experiment, num_devices, guide, **options)
    return sampler.draw(params)


@pytest.fixture(scope="module")
def experiment():
    return create_mlp_experiment()


@pytest.fixture(scope="module")
def images(experiment):
    return draw(experiment)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50])
def test_images_do_not_depend_on_the_batch(experiment, images, batch_size):
    np.testing.assert_array_equal(draw(experiment, batch_size=batch_size), images)


@pytest.mark.parametrize("start", [0, 1, 16, 19])
def test_drawing_may_begin_at_any_image(experiment, images, start):
    sampler, params = create_sampler(experiment)
    rest = np.concatenate(list(sampler.draw_batches(params, start)))
    np.testing.assert_array_equal(rest, images[start:])


def test_another_seed_needs_no_other_compilation(experiment, images):
    sampler, params = create_sampler(experiment)
    sampler.compile(params)
    other = sampler.with_seed(sampler.options.seed + 1)
    assert other.is_compiled
    assert (other.draw(params) != images).any()
    np.testing.assert_array_equal(other.with_seed(0).draw(params), images)


def test_images_do_not_depend_on_how_many_are_drawn(experiment, images):
    for num_images in (1, GROUP_SIZE["cpu"] + 1):
        fewer = draw(experiment, num_images=num_images)
        np.testing.assert_array_equal(fewer, images[:num_images])


def draw_on_four_devices():
    images = draw(create_mlp_experiment(), num_devices=4, batch_size=64)
    return {"images": images}


def test_images_do_not_depend_on_the_number_of_devices(images, on_devices):
    drawn = on_devices(4, draw_on_four_devices)["images"]
    np.testing.assert_array_equal(drawn, images)


def test_every_image_of_every_seed_is_another(experiment, images):
    both = np.concatenate([images, draw(experiment, seed=1)])
    assert len(np.unique(both, axis=0)) == len(both)


def test_the_label_rule_reaches_the_network(experiment, images):
    # Image 3 has label 3 in turn; others have another label and the same noise.
    threes = draw(experiment, labels=3)
    same = (threes == images).all(axis=(1, 2, 3))
    assert same.tolist() == [index % 10 == 3 for index in range(20)]


def test_an_unconditional_backbone_draws():
    images = draw(create_mlp_experiment(num_classes=0), num_images=3)
    assert images.shape == (3, 8, 8, 1)
    assert len(np.unique(images, axis=0)) == 3


def test_an_output_that_is_not_finite_is_an_error(experiment):
    options = SampleOptions(num_steps=2, num_images=1)
    sampler = Sampler(experiment, options, create_mesh(MeshOptions(1)))
    params = experiment.backbone.init(jax.random.key(0))
    with pytest.raises(NonFiniteError):
        sampler.draw(jax.tree.map(lambda p: p * jnp.nan, params))


def test_progress_counts_the_images(experiment):
    counts = []
    options = SampleOptions(num_steps=1, num_images=40, batch_size=16)
    sampler = Sampler(experiment, options, create_mesh(MeshOptions(1)))
    sampler.draw(experiment.backbone.init(jax.random.key(0)), counts.append)
    assert counts == [16, 32, 40]


def test_a_grid_has_one_row_a_class(images):
    labels = choose_labels("balanced", 20, 10)
    by_class = np.concatenate([images[labels == label] for label in range(10)])
    np.testing.assert_array_equal(
        sample_grid(images, labels), image_grid(by_class, columns=2, scale=8)
    )


def test_rows_of_ragged_classes_end_in_white(images):
    labels = np.array([0] * 5 + [1] * 15, np.int32)
    white = np.full_like(images[:5], 255)
    rows = np.concatenate([images[:5], white, images[5:15]])
    expected = image_grid(rows, columns=10, scale=8)
    np.testing.assert_array_equal(sample_grid(images, labels), expected)


def test_names_stand_beside_the_rows_of_their_classes(images):
    """Ink beside each row, another for another name, and the images as they were."""
    labels = np.array([0] * 10 + [1] * 10, np.int32)
    bare = sample_grid(images, labels)
    named = sample_grid(images, labels, class_names=("cat", "a dog"))
    strip, grid = np.split(named, [named.shape[1] - bare.shape[1]], axis=1)
    np.testing.assert_array_equal(grid, bare)
    first, second = strip[2:66], strip[68:132]
    assert (first < 128).any()
    assert (second < 128).any()
    assert (first != second).any()
    swapped = sample_grid(images, labels, class_names=("a dog", "cat"))
    np.testing.assert_array_equal(swapped[2:66, : strip.shape[1]], second)


def test_a_grid_without_classes_keeps_the_order(images):
    expected = image_grid(images, columns=10, scale=8)
    np.testing.assert_array_equal(sample_grid(images, None), expected)


@pytest.fixture(scope="module")
def guidable():
    return create_mlp_experiment(null_label=True)


def test_a_guidance_scale_of_one_changes_no_image(guidable, images):
    np.testing.assert_array_equal(draw(guidable, guidance=1.0), images)


def test_guidance_changes_images_within_its_interval_alone(guidable, images):
    guided = draw(guidable, guidance=3.0)
    assert (guided != images).any(axis=(1, 2, 3)).all()
    # Of five steps from t = 1 to 0.001 none begins in this interval.
    outside = draw(guidable, guidance=3.0, guidance_interval=(0.3, 0.39))
    np.testing.assert_array_equal(outside, images)
    within = draw(guidable, guidance=3.0, guidance_interval=(0.3, 0.45))
    assert (within != images).any(axis=(1, 2, 3)).all()


def test_guided_images_do_not_depend_on_the_batch(guidable):
    guided = draw(guidable, guidance=2.0)
    np.testing.assert_array_equal(draw(guidable, guidance=2.0, batch_size=3), guided)


def with_learned_variance(experiment, said):
    """The network saying the same of every step's variance."""
    backbone = experiment.backbone

    def with_variance(params, x, t, label):
        return backbone.apply(params, x, t, label), jnp.full_like(x, said)

    return replace(experiment, backbone=backbone._replace(with_variance=with_variance))


def test_the_least_variance_is_that_of_ddpm(guidable):
    for scale in (1.0, 3.0):
        draw_at = partial(draw, solver="ancestral", guidance=scale)
        least, most = (
            draw_at(with_learned_variance(guidable, said), variance="learned")
            for said in (-1.0, 1.0)
        )
        posterior = draw_at(guidable)
        # A rounding of the deviation may move a pixel to the next byte.
        assert np.abs(least.astype(int) - posterior).max() <= 1
        assert np.abs(most.astype(int) - posterior).max() > 1


def test_a_variance_that_nobody_learned_is_refused(guidable, experiment):
    options = SampleOptions(solver="ancestral", variance="learned")
    with pytest.raises(InputError, match=r"backbone\.learned_variance=True; this dig"):
        check_sample_options(guidable, options)
    with pytest.raises(InputError, match=r"do not go together: .*variance=posterior"):
        check_sample_options(
            with_learned_variance(guidable, 0.0), replace(options, guide="runs/worse")
        )


def test_a_network_that_guides_itself_changes_no_image(experiment, images):
    params = experiment.backbone.init(jax.random.key(0))
    same = draw(experiment, guide=Guide(params, None, 1), guidance=4.0)
    # Over both trees at once products round otherwise than over one.
    assert np.abs(same.astype(int) - images).max() <= 1
    other = experiment.backbone.init(jax.random.key(1))
    guided = draw(experiment, guide=Guide(other, None, 1), guidance=4.0)
    assert (guided != images).any(axis=(1, 2, 3)).all()
    apart = draw(experiment, guide=Guide(other, experiment.backbone, 1), guidance=4.0)
    assert np.abs(apart.astype(int) - guided).max() <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance": 2.0}, r"trained without label dropout"),
        ({"guidance": -1.0}, r"0 or more .*got -1"),
        ({"guidance_interval": (0.5, 0.2)}, r"ascending times in \[0, 1\]"),
        ({"solver": "euler"}, r"'euler'.*Available: .*dpm_solver"),
        ({"order": 2}, r"euler_maruyama takes no option 'order'"),
        ({"solver": "unipc", "eta": 0.5}, r"unipc takes no option 'eta'"),
        ({"solver": "ddim", "eta": 1.5}, r"eta.*1, got 1\.5"),
        ({"solver": "unipc", "num_steps": 2}, r"at least"),
        ({"time_grid": "linear"}, r"'linear'.*Available: .*karras"),
        ({"t_start": 0.1, "t_end": 0.2}, r"t_start=0\.1, t_end=0\.2"),
    ],
)
def test_ways_of_drawing_that_cannot_be_are_refused(experiment, options, said):
    with pytest.raises(InputError, match=said):
        check_sample_options(experiment, SampleOptions(**options))


@pytest.mark.parametrize("solver", ["ddim", "dpm_solver", "dpm_solver_pp", "unipc"])
def test_every_kind_of_solver_draws(experiment, solver):
    images = draw(experiment, solver=solver, num_steps=7, num_images=3)
    assert len(np.unique(images, axis=0)) == 3


def test_kernels_are_rounded_once_for_all_steps():
    """The loop over the steps is handed bfloat16 kernels, and none in float32."""
    config = load_config_file(str(DIGITS))
    config.backbone.update(dtype="mixed", width=40, depth=2, hops=1, patch_sizes=(4,))
    experiment = create_experiment(config)
    backbone, sde = experiment.backbone, experiment.sde
    times = create_times("uniform", sde, 5)

    def run(params, keys, label):
        denoise = make_denoiser(
            backbone.apply, params, sde, experiment.objective, label
        )
        solver = create_solver("euler_maruyama", sde, 5)
        return sample(denoise, solver, times, keys, backbone.image_shape, sde=sde)

    params = jax.eval_shape(backbone.init, jax.random.key(0))
    keys, label = jax.random.split(jax.random.key(1), 3), jnp.zeros(3, jnp.int32)
    text = jax.jit(run).lower(params, keys, label).compile().as_text() or ""
    carried = max(re.findall(r" = \((.*)\) while\(", text), key=len)
    kernels = {
        ",".join(map(str, leaf.shape[-2:]))
        for path, leaf in jax.tree.leaves_with_path(params["blocks"])
        if path[-1].key == "kernel"
    }
    assert {"40,40", "40,120", "120,40"} <= kernels
    for shape in kernels:
        assert not re.search(rf"\bf32\[(\d+,)*{shape}\]", carried)
    assert re.search(r"\bbf16\[(\d+,)*40,120\]", carried)
