"""Keys of the sections: their marks, their meanings, and what they refuse."""

import pytest
from shipped import DIGITS

from dig_jax.config import (
    load_config_file,
)
from dig_jax.errors import InputError
from dig_jax.experiment import (
    COMPUTING_KEYS,
    FREE_KEYS,
    TABLES,
    create_experiment,
    section_keys,
)
from dig_jax.options import FREE_SECTIONS, SECTIONS, SampleOptions
from dig_jax.options.keys import keys_of


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


def test_marks_hold_what_old_runs_were_kept_by():
    """Checkpoints name the first; digests of samples leave the other two out."""
    in_backbones = {"aggregation", "attention", "node_multiple", "remat", "unroll"}
    new = {"backbone.token_multiple"}
    named = {*(f"backbone.{key}" for key in in_backbones), "training.microbatch"}
    assert set(COMPUTING_KEYS) == named | new
    assert len(COMPUTING_KEYS) == len(named | new)
    assert FREE_SECTIONS == ("evaluation", "logging", "mesh", "sample")
    sample = keys_of(SampleOptions).items()
    ignored = {name for name, key in sample if not key.marks.images}
    assert ignored == {"num_images", "batch_size", "decode_batch", "keep_latents"}
    known = {name for name, key in sample if key.marks.known}
    # The records of inpainted images alone name these: tests/sampling/test_inpainting.
    inpainting = {"inpaint", "inpaint_iterations", "inpaint_jump"}
    assert known == inpainting | {"inpaint_resamplings"}


def test_what_changes_the_network_or_its_data_is_never_free():
    fixed = {
        f"{section}.{key}"
        for section in SECTIONS
        for key in section_keys(section)
        if f"{section}.{key}" not in FREE_KEYS
    }
    assert {"backbone.width", "sde.beta_max", "data.transform"} < fixed
    assert not {key.partition(".")[0] for key in fixed} & set(FREE_SECTIONS)
    assert {"data.data_dir", "data.num_threads", "training.num_steps"} < {*FREE_KEYS}


@pytest.mark.parametrize("section", TABLES)
def test_a_key_has_the_same_marks_under_every_name(section):
    found = {}
    for constructor in TABLES[section].values():
        for name, key in keys_of(constructor).items():
            if name not in keys_of(SECTIONS[section]):
                assert found.setdefault(name, key.marks) == key.marks, name


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_meaning(section):
    for name, key in section_keys(section).items():
        assert key.meaning, name


def test_an_experiment_of_another_value_is_another():
    config = load_config_file(DIGITS)
    experiment = create_experiment(config)
    for name in (
        "backbone.hops",
        "data.num_threads",
        "sample.seed",
        "training.log_every",
    ):
        assert experiment.changed({name: 3}) != experiment, name
    assert experiment.changed() == experiment


def test_the_size_of_a_data_set_is_the_default():
    config = load_config_file(DIGITS)
    del config.data["channels"], config.data["image_size"]
    assert create_experiment(config).data.image_shape == (8, 8, 1)


def test_what_must_be_given_is_named():
    config = load_config_file(DIGITS)
    config.unlock()
    config.data = dict(name="npz")
    with pytest.raises(InputError, match=r"config\.data\.image_size is missing"):
        create_experiment(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.image_size", 10**6),
        ("data.image_size", (10**6, 8)),
        ("sample.num_images", 10**12),
        ("sample.num_steps", 10**12),
        ("training.evaluate_images", 10**12),
        ("training.batch_size", 10**12),
    ],
)
def test_shapes_that_no_memory_holds_are_refused_by_their_key(key, value):
    config = load_config_file(DIGITS)
    with config.ignore_type():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"{key}.* less than or equal to"):
        create_experiment(config)
