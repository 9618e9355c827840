"""A key that is left out is its default, in every mode."""

import json
import re
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest
from shipped import CONFIGS, DIGITS

from dig_jax import main as command_line
from dig_jax.comparison.markdown import format_comparison
from dig_jax.comparison.measure import Speed
from dig_jax.comparison.plan import create_plan
from dig_jax.comparison.report import comparison_record
from dig_jax.config import (
    config_to_json,
    load_config_file,
    read_config_file,
    with_values,
)
from dig_jax.config.comparison import read_comparison
from dig_jax.costs.count_tables import count_tables
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.experiment import (
    check_same_run,
    complete_config,
    create_experiment,
    section_defaults,
)
from dig_jax.export.model_card import model_card
from dig_jax.options import SECTIONS
from dig_jax.run import Run, load
from dig_jax.sampling.samples import describe_samples, read_samples
from dig_jax.training.environment import describe_environment


def networks():
    """The shipped configurations, each with one variant of every backbone it has."""
    for path in sorted(CONFIGS.glob("*.py")):
        if path.name == "folder.py":  # it needs data to be complete
            continue
        if "backbone" not in read_config_file(str(path)):
            continue
        found = {}
        for variant in runpy.run_path(str(path)).get("VARIANTS", [""]):
            name = f"{path}:{variant}" if variant else str(path)
            found.setdefault(read_config_file(name).backbone.name, name)
        yield from found.values()


NETWORKS = list(networks())
TINY = {
    "backbone.width": 16,
    "backbone.depth": 2,
    "data.image_size": 8,
    "mesh.data": 1,
    "sample.num_images": 10,
    "sample.num_steps": 2,
    "training.batch_size": 8,
    "training.num_steps": 2,
    "training.samples_per_class": 1,
}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


def bare_config(data_dir):
    """Digits by a tiny network, with few keys written."""
    config = load_config_file(DIGITS)
    config.unlock()
    for section in SECTIONS:
        config[section] = {}
    config.backbone = dict(name="dig_parallel", num_classes=10)
    config.sde = dict(name="vp_linear")
    config.data = dict(name="digits", data_dir=str(data_dir))
    return with_values(config, TINY)


def both_ways(config):
    """For each key: its name, the configuration without it, and with its default.

    A configuration that does not write a key is itself the one without it.
    """
    for section in SECTIONS:
        written = config[section].to_dict()
        for key, default in section_defaults(section, written).items():
            name, without = f"{section}.{key}", config
            if key in written:
                without = config.copy_and_resolve_references()
                without.unlock()
                without[section] = {k: v for k, v in written.items() if k != key}
            yield name, without, with_values(without, {name: default})


def outcome(config):
    """What a configuration comes to; text where it cannot be."""
    try:
        return create_experiment(config)
    except InputError as error:
        return str(error)


def described(experiment):
    """What it says of images, of steps, of itself; without the digest of its text."""
    samples = describe_samples(experiment, experiment.sample, 7)
    environment = describe_environment(experiment, experiment.mesh)
    run = Run(experiment, {}, 7, experiment.mesh)
    card = model_card(run, experiment.sample, ["cpu"])
    del samples["config"]
    return samples, environment, card


@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: Path(path).name)
def test_a_key_left_out_equals_its_default(network):
    config = load_config_file(network)
    worked, whole = 0, outcome(config)
    for name, without, written in both_ways(config):
        left = whole if without is config else outcome(without)
        given = outcome(written)
        assert left == given, name
        worked += not isinstance(left, str)
    assert worked > 50


@pytest.mark.parametrize("network", [DIGITS, f"{CONFIGS / 'cifar10_cond.py'}:uvit_2"])
def test_what_is_told_of_a_key_left_out_is_its_default(network):
    config = load_config_file(network)
    told = described(create_experiment(config))
    for name, without, written in both_ways(config):
        assert check_same_run(without, written, "runs/a") == []
        left = outcome(without)
        if not isinstance(left, str):
            expected = told if without is config else described(left)
            assert described(create_experiment(written)) == expected, name


def comparison(**sections):
    config = read_config_file(str(CONFIGS / "compare_digits.py"))
    config.unlock()
    config.variants = {"parallel": {}, "other": sections}
    return config


@pytest.mark.parametrize("name", ["uvit", "dit"])
def test_a_width_is_matched_without_the_number_of_heads(name):
    keys = dict(name=name, num_classes=10, depth=2)
    default = section_defaults("backbone", keys)["num_heads"]
    left, given = (
        create_plan(read_comparison(comparison(backbone={**keys, **heads})))
        for heads in ({}, {"num_heads": default})
    )
    assert left.variants[1].experiment == given.variants[1].experiment
    assert left.variants[1].macs == given.variants[1].macs


def test_a_comparison_is_the_same_with_keys_left_out(data_dir):
    """Its plan, its record and its tables, with few keys of the base and with all."""
    config = comparison(backbone=dict(name="dig_mix", width=16, depth=2))
    config.compare.update(budget="none", num_points=2)
    speed = Speed(100.0, (90.0, 110.0), 2**20, 1.0)

    def report(base):
        config.base = base
        plan = create_plan(read_comparison(config))
        speeds = {variant.name: speed for variant in plan.variants}
        record = comparison_record(plan, speeds, Path("no/such/folder"))
        return json.loads(json.dumps(record)), format_comparison(record)

    few = bare_config(data_dir)
    left, given = report(few), report(complete_config(few))
    assert left == given
    other = left[0]["variants"][1]
    assert other["differs"] == {"backbone.name": "dig_mix", "backbone.num_classes": 0}


def test_the_counts_of_tables_do_not_depend_on_what_is_written(tmp_path):
    """Without `aggregation` they would be of the matrices that a CPU multiplies."""
    network = dict(name="dig_mix", width=16, depth=2)
    for name, keys in {"left": {}, "given": {"aggregation": "auto"}}.items():
        (tmp_path / f"{name}.py").write_text(
            "import runpy\n"
            "def get_config():\n"
            f"    config = runpy.run_path({DIGITS!r})['get_config']()\n"
            "    with config.unlocked():\n"
            f"        config.backbone = {network | keys}\n"
            "    return config\n"
        )
    rows = (("Digits", "A", "left.py"), ("Digits", "B", "given.py"))
    tables = dict(folder=str(tmp_path), batch=10, tables=(("T", rows),))
    left, given = count_tables(tables).tables["T"]
    assert left.costs == given.costs


def run_all_modes(folder, config):
    """Train, draw, score, count and export by the command line; what came of it."""
    folder.mkdir()
    (folder / "config.py").write_text(
        "from dig_jax.config import config_from_json\n"
        f"def get_config(): return config_from_json({config_to_json(config)!r})\n"
    )
    workdir = folder / "run"
    for mode in ("train", "sample", "evaluate", "export"):
        file = [f"--config={folder}/config.py"] if mode == "train" else []
        arguments = [f"--mode={mode}", f"--workdir={workdir}", *file]
        assert command_line.main(arguments) == EXIT_DONE
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """Workdirs of a run with few keys written, and of the same with all."""
    bare = bare_config(data_dir)
    folder = tmp_path_factory.mktemp("runs")
    return [
        run_all_modes(folder / name, config)
        for name, config in (("bare", bare), ("full", complete_config(bare)))
    ]


def test_a_run_with_few_keys_ends_as_one_with_all(runs):
    bare, full = (load(workdir) for workdir in runs)
    assert "ema_decay" not in bare.config.training
    assert full.config.training.ema_decay == 0.9999
    assert bare.step == full.step == 2
    assert bare.parameters_digest == full.parameters_digest
    np.testing.assert_array_equal(bare.sample(4), full.sample(4))


def test_its_samples_and_scores_are_the_same(runs):
    (left, described), (given, in_full) = (
        read_samples(workdir / "samples.npz") for workdir in runs
    )
    np.testing.assert_array_equal(left.images, given.images)
    assert described.pop("config") != in_full.pop("config")  # of what is written
    assert described == in_full
    left, given = (
        json.loads((workdir / "eval" / "scores.jsonl").read_text()) for workdir in runs
    )
    assert left["scores"] == given["scores"]
    cards = [(workdir / "export" / "README.md").read_text() for workdir in runs]
    assert cards[0] == cards[1]


def test_either_goes_on_as_the_other(runs, capsys):
    bare, full = runs
    for workdir, other in ((bare, full), (full, bare)):
        file = f"--config={other.parent}/config.py"
        assert command_line.main([file, f"--workdir={workdir}"]) == EXIT_DONE
        said = capsys.readouterr().out
        assert "exact resume" in said
        assert "changed:" not in said


def test_progress_knows_the_steps_that_are_left_at_their_default(
    tmp_path, data_dir, monkeypatch, capsys
):
    def signalled(stop):
        stop.received = signal.SIGTERM
        return stop

    monkeypatch.setattr("dig_jax.training.stop.StopSignal.__enter__", signalled)
    config = load_config_file(DIGITS)
    config = with_values(config, {**TINY, "data.data_dir": str(data_dir)})
    config.unlock()
    del config.training["num_steps"]
    (tmp_path / "config.py").write_text(
        "from dig_jax.config import config_from_json\n"
        f"def get_config(): return config_from_json({config_to_json(config)!r})\n"
    )
    file, workdir = f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run"
    assert command_line.main([file, workdir]) == EXIT_DONE
    said = capsys.readouterr()
    assert re.search(r"step +1/500000 ", said.err)
