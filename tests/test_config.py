"""Configurations: read, written, compared, checked, and the ones that we ship."""

import copy
import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import pytest
from ml_collections import ConfigDict
from pydantic import NonNegativeInt, PositiveInt

from dig_jax.config import (
    check_sections,
    config_differences,
    config_from_json,
    config_to_json,
    load_config_file,
    load_run_config,
    read_config_file,
    save_run_config,
)
from dig_jax.errors import InputError
from dig_jax.evaluation import check_evaluation_options
from dig_jax.experiment import FREE_KEYS, check_same_run, create_experiment
from dig_jax.options import SECTIONS, OptimizerOptions
from dig_jax.options.keys import call_with_section
from dig_jax.sampling.choices import check_sample_options
from dig_jax.training.optimizer import create_optimizer
from dig_jax.training.step import create_state

CONFIG_FILES = [
    path
    for path in sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
    if "backbone" in read_config_file(str(path))  # the others are of several networks
    and path.stem != "folder"  # complete with its data, see test_own_images.py
]
DIGITS = next(str(path) for path in CONFIG_FILES if path.stem == "digits")

# Table 4 of the paper; K hops are the GNNs', heads the transformers'.
TABLE_4 = {
    "cifar10": dict(
        hops=2, num_heads=8, width=512, depth=12, batch_size=128, num_steps=500_000,
        warmup_steps=2500, learning_rate=2e-4, weight_decay=0.03, betas=(0.99, 0.999),
    ),
    "svhn": dict(
        hops=2, num_heads=8, width=448, depth=10, batch_size=256, num_steps=400_000,
        warmup_steps=2500, learning_rate=2e-4, weight_decay=0.03, betas=(0.99, 0.99),
    ),
    "imagenet64": dict(
        hops=1, num_heads=12, width=768, depth=16, batch_size=512, num_steps=300_000,
        warmup_steps=5000, learning_rate=3e-4, weight_decay=0.03, betas=(0.99, 0.99),
    ),
}  # fmt: skip
SAMPLERS = {
    "cifar10": ("euler_maruyama", 1000),
    "svhn": ("euler_maruyama", 1000),
    "imagenet64": ("dpm_solver", 50),
}


@pytest.fixture
def config():
    return load_config_file(DIGITS)


def unlocked_copy(config):
    other = copy.deepcopy(config)
    other.unlock()
    return other


def test_json_gives_the_configuration_back(config):
    again = config_from_json(config_to_json(config))
    assert again.to_dict() == config.to_dict()
    assert again.backbone.patch_sizes == (2, 4)


def test_a_run_gives_its_configuration_back(config, tmp_path):
    save_run_config(config, tmp_path)
    assert load_run_config(tmp_path).to_dict() == config.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_list_is_the_same_as_a_tuple(config):
    other = unlocked_copy(config)
    other.backbone = {**config.backbone, "patch_sizes": [2, 4]}
    assert config_differences(config, other) == {}


def test_differences_are_changed_new_and_lost_keys(config):
    other = unlocked_copy(config)
    other.backbone.width = 7
    other.backbone.extra = 1
    del other.sde["beta_min"]
    assert config_differences(config, other) == {
        "backbone.extra": (None, 1),
        "backbone.width": (96, 7),
        "sde.beta_min": (0.1, None),
    }


def test_another_run_is_refused_with_its_keys_and_both_values(config):
    other = copy.deepcopy(config)
    other.backbone.width = 7
    other.seed = 5
    other.mesh.data = 1
    with pytest.raises(InputError) as error:
        check_same_run(config, other, "runs/a")
    message = str(error.value)
    assert "runs/a" in message
    assert "backbone.width: 96 -> 7; seed: 0 -> 5." in message
    assert "mesh" not in message


@pytest.mark.parametrize("free", FREE_KEYS)
def test_free_keys_may_change_and_are_told(config, free):
    other = unlocked_copy(config)
    section, _, key = free.partition(".")
    with other.ignore_type():
        other[section][key] = "another"
    [line] = check_same_run(config, other, "runs/a")
    assert line.startswith(f"{section}.{key}: ")
    assert line.endswith(" -> 'another'")


@dataclass(frozen=True)
class Options:
    width: PositiveInt
    kind: Literal["a", "b"] = "a"
    rate: float = 1.0


@dataclass(frozen=True)
class OneOrSeveral:
    sizes: NonNegativeInt | tuple[PositiveInt, ...] = 0


def make_options(*, width: PositiveInt, kind: Literal["a", "b"] = "a", rate=1.0):
    return Options(width, kind, rate)


@pytest.mark.parametrize("function", [Options, make_options])
def test_a_section_is_the_keywords_of_its_constructor(function):
    section = {"width": 3, "kind": "b"}
    assert call_with_section("backbone", function, section) == Options(3, "b")
    assert call_with_section("backbone", function, {"kind": "b"}, width=2).width == 2


@pytest.mark.parametrize("function", [Options, make_options])
@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"widht": 3}, "Unknown key config.some.widht. Available: kind, rate, width."),
        ({}, "config.some.width is missing."),
        ({"width": "abc"}, "config.some.width must be a valid integer.*got 'abc'"),
        ({"width": 2.5}, "config.some.width must be a valid integer.*got 2.5"),
        ({"width": 0}, "config.some.width must be greater than 0, got 0"),
        ({"width": 1, "kind": "c"}, "config.some.kind must be 'a' or 'b', got 'c'"),
        ({"width": 1, "rate": float("inf")}, "config.some.rate must be finite"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_needed(function, section, said):
    with pytest.raises(InputError, match=said):
        call_with_section("some", function, section)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (-1, "config.some.sizes must be greater than or equal to 0, got -1."),
        ((1, -2), "config.some.sizes.1 must be greater than 0, got -2."),
    ],
)
def test_where_one_value_or_several_may_be_no_kind_is_named(sizes, said):
    with pytest.raises(InputError) as error:
        call_with_section("some", OneOrSeveral, {"sizes": sizes})
    assert said in str(error.value)
    assert not re.search(r"constrained|\[", str(error.value))


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.99, 0.999)])
def test_another_number_of_values_is_refused_with_how_many_are_needed(betas):
    with pytest.raises(InputError) as error:
        call_with_section("optimizer", OptimizerOptions, {"betas": betas})
    assert str(error.value) == (
        f"config.optimizer.betas must be 2 values, such as (0.99, 0.999), got "
        f"{betas!r}. It is: Decay of the first and second moment, in [0, 1)."
    )


@pytest.mark.parametrize("norm", [-1, None, "off"])
def test_a_wrong_norm_of_gradients_is_told_how_clipping_is_switched_off(norm):
    with pytest.raises(InputError, match=r"got .*; 0 switches clipping off\.$"):
        call_with_section("optimizer", OptimizerOptions, {"max_grad_norm": norm})


def test_a_keyword_of_ours_is_no_key_of_the_section():
    with pytest.raises(InputError, match=r"Unknown key config\.some\.width"):
        call_with_section("some", make_options, {"width": 1}, width=2)


def test_every_wrong_value_is_told_at_once():
    with pytest.raises(InputError, match=r"width must.*kind must"):
        call_with_section("some", Options, {"width": -1, "kind": "x"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no function get_config"),
        ("def get_config(): return {}", "ml_collections.ConfigDict, got dict"),
        ("def get_config(size): return {}", r"size.*FILE:VARIANT"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(): return ConfigDict(dict(seed=0, bakbone={}))",
            "lacks backbone.*has unknown bakbone",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content, said):
    path = tmp_path / "config.py"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        load_config_file(str(path))


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("width = 3\nwidth = widht\n", 2, "NameError: name 'widht' is not defined"),
        ("def get_config(:\n", 1, "SyntaxError: "),
        (
            "from ml_collections import ConfigDict\ndef get_config():\n"
            "    config = ConfigDict({}).lock()\n    config.bakbone = 3\n",
            4,
            "AttributeError: .*bakbone",
        ),
        ("import no_such_module\n", 1, "ModuleNotFoundError: .*no_such_module"),
    ],
)
def test_an_error_in_a_configuration_is_one_line_with_its_place(
    tmp_path, content, line, said
):
    path = tmp_path / "config.py"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        load_config_file(str(path))
    assert re.fullmatch(
        re.escape(f"{path}, line {line}: ") + f"{said}.*", str(error.value)
    )


def test_the_text_after_the_colon_goes_to_get_config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "import runpy\n"
        "def get_config(width='8'):\n"
        f"    config = runpy.run_path({DIGITS!r})['get_config']()\n"
        "    config.backbone.width = int(width)\n"
        "    return config\n"
    )
    assert load_config_file(f"{path}:24").backbone.width == 24
    assert load_config_file(str(path)).backbone.width == 8


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_a_seed_that_is_no_whole_number_is_refused(config, seed):
    config = unlocked_copy(config)
    with config.ignore_type():
        config.seed = seed
    with pytest.raises(InputError, match="seed must be a whole number"):
        check_sections(config, "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"seed": 0}'])
def test_a_damaged_config_json_is_refused_with_its_path(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_run_config(tmp_path)


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_config_that_we_ship_builds(path):
    config = load_config_file(str(path))
    assert isinstance(config, ConfigDict)
    assert set(config) == {*SECTIONS, "seed"}
    experiment = create_experiment(config)
    check_sample_options(experiment, experiment.sample)
    check_evaluation_options(experiment.evaluation)
    num_steps = experiment.training.num_steps
    optimizer = create_optimizer(experiment.optimizer, num_steps=num_steps)
    state = jax.eval_shape(
        lambda key: create_state(experiment, optimizer, key), jax.random.key(0)
    )
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_configs_of_the_paper_have_its_table_4(path):
    name = path.stem.removesuffix("_cond")
    if name not in TABLE_4:
        assert path.stem in (
            "digits",
            "fashion_mnist",
            "imagenet256",
            "imagenet512",
        )  # not in the paper
        return
    for variant in runpy.run_path(str(path))["VARIANTS"]:
        config = load_config_file(f"{path}:{variant}")
        ours = {**config.optimizer, **config.training, **config.backbone}
        published = dict(TABLE_4[name])
        del published["hops" if "num_heads" in ours else "num_heads"]
        assert {key: ours.get(key) for key in published} == published
        assert config.optimizer.schedule == "constant"
        assert config.sde.to_dict() == dict(
            name="vp_linear", beta_min=0.1, beta_max=20.0
        )
        objective = config.objective
        assert (objective.prediction, objective.loss_space) == ("eps", "eps")
        assert config.training.ema_decay == 0.9999
        assert (config.sample.solver, config.sample.num_steps) == SAMPLERS[name]
