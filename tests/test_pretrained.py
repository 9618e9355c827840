"""Models that come with the package: they draw at once, and stay as they are."""

import fnmatch
import math
import re

import jax
import numpy as np
import pytest
from processes import config_flags
from program_cache import compiled_quickly

import dig_jax
from dig_jax.config import load_config_file, with_values
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation import mean_record, read_records
from dig_jax.experiment import check_same_run
from dig_jax.files.pretrained import FOLDER, shipped_names
from dig_jax.main import main
from dig_jax.pretrained import make
from dig_jax.pretrained.check import compare_scores
from dig_jax.storage.export_folder import read_manifest
from dig_jax.storage.run_config import restore_run_config
from dig_jax.training.beginning import check_beginning, read_beginning

NAMES = shipped_names()
DIGITS = "--workdir=pretrained:digits"
FEW = config_flags({"sample.num_images": 2, "sample.num_steps": 1})
MOST_BYTES = 8_000_000


def listing():
    """What lies in the models' folders, and since when."""
    files = [file for name in NAMES for file in (FOLDER / name).rglob("*")]
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in a folder of their own, and leave the models as they are."""
    monkeypatch.chdir(tmp_path)
    before = listing()
    with compiled_quickly():
        yield
    assert listing() == before


def refused(capsys, *arguments):
    assert main([*arguments]) == EXIT_BAD_INPUT
    return capsys.readouterr().err


def test_they_are_small_and_built_into_the_package():
    assert "digits" in NAMES
    files = [file for file in listing() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    setup = (FOLDER.parents[1] / "setup.py").read_text(encoding="utf-8")
    (patterns,) = re.findall(r"^SHIPPED = \[(.*)\]$", setup, re.MULTILINE)
    for file in files:
        name = file.relative_to(FOLDER).as_posix()
        fitting = [p for p in re.findall(r'"(.*?)"', patterns) if fits(name, p)]
        assert fitting, f"{name} would not be installed"


def fits(name, pattern):
    parts = name.split("/"), pattern.split("/")
    return len(parts[0]) == len(parts[1]) and all(map(fnmatch.fnmatch, *parts))


@pytest.mark.parametrize("name", NAMES)
def test_the_command_on_the_card_trains_the_same_run(name):
    training = read_manifest(FOLDER / name)["training"]
    config = restore_run_config(FOLDER / name, write=False)
    check_same_run(load_config_file(training["config"]), config, name)
    assert config.data.data_dir == ""
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert f"--config={training['config']} " in card
    assert training["commit"] in card


@pytest.mark.parametrize("name", NAMES)
def test_the_last_record_is_the_mean_of_the_others(name):
    *seeds, mean = read_records(FOLDER / name)
    expected = mean_record(seeds)
    assert mean["scores"] == expected["scores"]
    assert mean["samples"] == expected["samples"]
    digest = read_manifest(FOLDER / name)["parameters_digest"]
    assert mean["samples"]["parameters_digest"] == digest


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_were_scored(name):
    run = dig_jax.load(f"pretrained:{name}")
    assert run.parameters_digest == read_manifest(FOLDER / name)["parameters_digest"]


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_drawn_at_once(name):
    run = dig_jax.load(f"pretrained:{name}")
    (label,) = run.experiment.data.class_names[-2:-1] or (8,)
    images = run.sample(2, labels=label, num_steps=2)
    assert images.dtype == np.uint8
    assert images.shape == (2, *run.experiment.backbone.image_shape)
    assert np.ptp(images) > 100


def test_images_lie_in_the_current_folder_or_where_they_are_wanted(tmp_path):
    assert main(["--mode=sample", DIGITS, *FEW]) == EXIT_DONE
    assert main(["--mode=sample", DIGITS, *FEW, "--out=there"]) == EXIT_DONE
    for folder in ("pretrained_digits", "there"):
        with np.load(tmp_path / folder / "samples.npz") as drawn:
            assert drawn["images"].shape == (2, 8, 8, 1)


def test_scores_lie_in_the_current_folder(tmp_path):
    flags = config_flags({"evaluation.features": "none"})
    metrics = "--config.evaluation.metrics=('copies',)"
    assert main(["--mode=evaluate", DIGITS, *FEW, *flags, metrics]) == EXIT_DONE
    (record,) = read_records(tmp_path / "pretrained_digits")
    assert record["num_images"] == 2


def test_a_summary_is_of_the_model(capsys):
    assert main(["--mode=summary", DIGITS]) == EXIT_DONE
    assert "dig_parallel" in capsys.readouterr().out


def test_a_run_can_begin_with_one(tmp_path):
    config = load_config_file("configs/digits.py")
    begun = with_values(config, {"training.init_from": "pretrained:digits"})
    run = dig_jax.load("pretrained:digits")
    assert check_beginning(dig_jax.create_experiment(begun), tmp_path) == ""
    abstract = jax_like(run.params)
    _, origin = read_beginning("pretrained:digits", abstract)
    assert origin["workdir"] == "pretrained:digits"
    assert origin["parameters_digest"] == run.parameters_digest


def jax_like(params):
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), params
    )


def test_an_unknown_name_says_which_there_are(capsys):
    known = f"Available: {', '.join(f'pretrained:{name}' for name in NAMES)}"
    with pytest.raises(InputError, match=f"Unknown .* 'digit'. {known}"):
        dig_jax.load("pretrained:digit")
    said = refused(capsys, "--mode=sample", "--workdir=pretrained:digit")
    assert known in said


def test_nothing_is_written_into_one(capsys):
    config = "--config=configs/digits.py"
    said = refused(capsys, config, DIGITS)
    assert "--init_from=pretrained:digits" in said
    said = refused(capsys, config, f"--workdir={FOLDER / 'digits'}")
    assert "lies in the package dig_jax" in said
    for mode in ("sample", "evaluate"):
        said = refused(capsys, f"--mode={mode}", DIGITS, "--out=pretrained:digits")
        assert "lies in the package dig_jax" in said
    inside = f"--out={FOLDER / 'digits' / 'export'}"
    said = refused(capsys, "--mode=export", DIGITS, inside)
    assert "name a folder of your own, such as pretrained_digits" in said
    assert said.count("\n") == 1


def test_the_best_step_of_one_is_refused_without_sending_people_elsewhere(capsys):
    for step in ("best", "1"):
        said = refused(capsys, "--mode=sample", DIGITS, f"--step={step}")
        assert "A model of the package holds one set of parameters" in said
        assert said.endswith(f"got step={step}. Here leave step out.\n")


def test_another_configuration_makes_no_model(tmp_path):
    run, other = dig_jax.load("pretrained:digits"), "configs/fashion_mnist.py:small"
    with pytest.raises(InputError, match=r"backbone\.width: 96 -> 48"):
        make.make_pretrained(
            "x", run, other, seeds=2, num_images=10, out=tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()


def record(value, std: float | None = 0.5, **other):
    score = {"value": value, "num_images": 100} | ({"std": std} if std else {})
    return {
        "scores": {"fd_digits100": score},
        "real": {"fingerprint": "a"},
        "features": {"weights": "b"},
        "num_images": 100,
    } | other


@pytest.mark.parametrize(
    ("value", "inside"), [(2.49, True), (-0.49, True), (2.51, False), (math.nan, False)]
)
def test_three_deviations_are_the_bound(value, inside):
    (found,) = compare_scores(record(1.0), record(value, None))
    assert found.is_inside is inside


def test_a_share_of_images_may_differ_by_single_images():
    shares = {"label_accuracy": {"value": 1.0, "num_images": 100, "std": 0.0}}
    recorded = record(1.0) | {"scores": shares}
    for value, inside in ((0.98, True), (0.96, False)):
        found = record(1.0) | {"scores": {"label_accuracy": {"value": value}}}
        (one,) = compare_scores(recorded, found)
        assert one.is_inside is inside


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"real": {"fingerprint": "c"}}, "real images"),
        ({"features": {"weights": "c"}}, "classifier"),
        ({"num_images": 200}, "number of images"),
    ],
)
def test_scores_of_other_things_do_not_compare(other, what):
    with pytest.raises(InputError, match=f"same {what}"):
        compare_scores(record(1.0), record(1.0, **other))
