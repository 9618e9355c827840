"""The objective section of a configuration."""

import pytest
from ml_collections import ConfigDict

from dig_jax.diffusion import SDES, Objective, check_objective, create_sde
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.options import SECTIONS
from dig_jax.options.keys import call_with_section


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "epsilon"}, r"prediction must be 'eps', .* got 'epsilon'"),
        ({"loss_space": "snr"}, r"loss_space must be .*'min_snr', got 'snr'"),
        ({"times": "random"}, r"times must be 'uniform', .* got 'random'"),
        ({"label_dropout": 1.0}, r"label_dropout must be less than 1, got 1\.0"),
        ({"label_dropout": -0.1}, r"label_dropout must be .* 0, got -0\.1"),
        ({"min_snr_gamma": 0.0}, r"min_snr_gamma must be greater than 0, got 0\.0"),
        ({"sigma_data": -1.0}, r"sigma_data must be greater than 0, got -1\.0"),
        ({"log_sigma_std": 0.0}, r"log_sigma_std must be greater than 0, got 0\.0"),
    ],
)
def test_a_section_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        call_with_section("objective", Objective, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "epsilon"}, r"Unknown prediction 'epsilon'.*: edm, eps, flow"),
        ({"loss_space": "snr"}, r"Unknown loss_space 'snr'.*min_snr"),
        ({"times": "random"}, r"Unknown times 'random'.*log_normal"),
        ({"label_dropout": 1.0}, r"label_dropout must be in \[0, 1\).*got 1\.0"),
    ],
)
def test_an_objective_out_of_range_is_refused(options, message):
    # Not through the constructor, where tests check the types of arguments first.
    objective = Objective()
    for name, value in options.items():
        object.__setattr__(objective, name, value)
    with pytest.raises(InputError, match=message):
        objective.__post_init__()


@pytest.mark.parametrize("name", SDES)
def test_only_images_that_grow_need_a_scaled_input(name):
    sde = create_sde(name)
    scaled, plain = Objective("edm"), Objective("v")
    assert check_objective(scaled, sde) is scaled
    if name != "edm":
        assert check_objective(plain, sde) is plain
        return
    with pytest.raises(InputError, match=r"of 80.*objective\.prediction=edm, got 'v'"):
        check_objective(plain, sde)


def create(**objective):
    config = ConfigDict({section: {} for section in SECTIONS} | {"seed": 0})
    config.backbone = dict(
        name="dig_parallel", width=8, depth=2, patch_sizes=(2,), num_classes=3
    )
    config.data = dict(name="synthetic", image_size=4, channels=1)
    config.objective = objective
    config.sde = dict(name="edm")
    return create_experiment(config)


@pytest.mark.parametrize("label_dropout", [0.0, 0.1])
def test_a_backbone_learns_no_class_where_labels_are_dropped(label_dropout):
    experiment = create(prediction="edm", label_dropout=label_dropout)
    assert experiment.backbone.null_label == (label_dropout > 0)


def test_an_experiment_is_refused_what_its_sde_cannot_do():
    with pytest.raises(InputError, match=r"objective\.prediction=edm, got 'eps'"):
        create(prediction="eps")
