"""Comparisons: every variant is treated alike, and nothing is done twice."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from tensorboard_events import read_events

from dig_jax.comparison import measure, plots, report
from dig_jax.comparison import plan as comparison_plan
from dig_jax.comparison import run as comparison_run
from dig_jax.comparison.held_out import HeldOutLosses
from dig_jax.comparison.markdown import format_comparison
from dig_jax.comparison.measure import Speed
from dig_jax.comparison.plan import create_plan, match_width
from dig_jax.comparison.points import read_points
from dig_jax.comparison.report import comparison_record
from dig_jax.comparison.run import compare, describe_comparison, with_equal_seconds
from dig_jax.config import read_comparison, read_config_file, vary, with_values
from dig_jax.costs.summary import count_costs
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.evaluation.checks import num_features
from dig_jax.experiment import create_experiment
from dig_jax.files.checked_json import write_checked
from dig_jax.interfaces import LabelledImages
from dig_jax.options.compare import CompareOptions
from dig_jax.reporting.metric_writer import EVALUATION
from dig_jax.run import load
from dig_jax.training import log as training_log

CONFIGS = Path(__file__).parents[1] / "configs"
SPEED = Speed(100.0, (90.0, 110.0), 2**20, 1.0)


def create_config(data_dir, **variants):
    """The shipped comparison, as small as it can be."""
    config = read_config_file(str(CONFIGS / "compare_digits.py"))
    config.unlock()
    base = config.base
    base.backbone.update(width=8, depth=2, hops=1, patch_sizes=(4,), unroll=1)
    base.data.data_dir = str(data_dir)
    base.training.update(batch_size=8, num_steps=4, log_every=2, diversity_every=2)
    base.sample.update(num_steps=4, num_images=10, batch_size=16)
    base.evaluation.metrics = ("frechet_pixels",)
    config.compare.update(reference="parallel", seeds=(0,), num_points=2)
    config.compare.budget = "none"
    config.variants = ConfigDict(variants or {"parallel": {}})
    return config


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="module", autouse=True)
def no_stopwatch():
    """Speeds are not what is tested: they take seconds and differ each time."""

    def measure(plan, workdir, say):
        return {variant.name: SPEED for variant in plan.variants}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_run, "measure_speeds", measure)
        yield


@pytest.fixture
def no_plots(monkeypatch):
    """They take seconds; `compared` has them."""
    monkeypatch.setattr(report, "plot_comparison", lambda *_: None)


@pytest.fixture(scope="module")
def compared(data_dir, tmp_path_factory):
    """A comparison of three variants with one seed, not to be changed."""
    workdir = tmp_path_factory.mktemp("compared")
    config = create_config(
        data_dir, parallel={}, twin={}, other={"backbone": {"mlp_ratio": 2.0}}
    )
    told = {"writers": ("tensorboard",), "tensorboard_dir": str(workdir / "events")}
    config.base.logging = told
    assert compare(read_comparison(config), workdir) == EXIT_DONE
    return config, workdir


def points_of(workdir, run):
    return read_points(workdir / "runs" / run)


def test_variants_that_are_the_same_end_the_same(compared):
    """Same data, order, times, noise, optimizer and samples: to the last bit."""
    _, workdir = compared
    parallel, twin, other = (
        points_of(workdir, f"{name}-0") for name in ("parallel", "twin", "other")
    )
    for point in (parallel, twin, other):
        assert set(point) == {"2", "4"}
        for record in point.values():
            del record["record"]  # with the seconds that it took
    assert parallel == twin
    assert parallel["4"]["noise_levels"] != other["4"]["noise_levels"]


def test_the_scores_of_each_run_are_told_to_the_writers(compared):
    _, workdir = compared
    for name in ("parallel-0", "twin-0", "other-0"):
        told = {
            (event.step, value.tag.removeprefix(EVALUATION)): value.simple_value
            for file in (workdir / "events" / name).glob("events.*")
            for event in read_events(file)
            for value in event.summary.value
            if value.tag.startswith(EVALUATION)
        }
        expected = {}
        for step, point in points_of(workdir, name).items():
            for score, found in point["record"]["scores"].items():
                expected[int(step), score] = found["value"]
            loss = np.mean(point["noise_levels"]["eps"])
            expected[int(step), "held_out_loss"] = loss
        assert told.keys() == expected.keys()
        for key, value in expected.items():
            assert told[key] == pytest.approx(value, rel=1e-6)  # of float32


def test_speeds_that_were_measured_are_not_measured_again(data_dir, tmp_path, capsys):
    plan = create_plan(read_comparison(create_config(data_dir)))
    record = {"identity": measure.identity_of(plan), "speeds": {}}
    record["speeds"]["parallel"] = SPEED._asdict()
    (tmp_path / "speed.json").write_text(json.dumps(record))
    found = measure.measure_speeds(plan, tmp_path, print)
    assert list(found) == ["parallel"]
    assert found["parallel"].images_per_second == SPEED.images_per_second
    assert capsys.readouterr().out == ""


def test_a_variant_that_comes_later_leaves_the_speeds_of_the_others(
    data_dir, tmp_path, monkeypatch
):
    """Their numbers of steps rest on them."""
    timed = []

    class Timed:
        peak_bytes, compile_seconds = None, 1.0

        def __init__(self, variant, workdir):
            timed.append(variant.name)

        def images_per_second(self):
            return 100.0 * len(timed)

    monkeypatch.setattr(measure, "_TimedStep", Timed)
    wide = {"backbone": {"width": 16}}
    variants = {"parallel": {}}
    for added in ({}, {"wide": wide}):
        config = create_config(data_dir, **variants, **added)
        plan = create_plan(read_comparison(config))
        speeds = measure.measure_speeds(plan, tmp_path, print)
    assert timed == ["parallel", "wide"]
    rates = {name: speed.images_per_second for name, speed in speeds.items()}
    assert rates == {"parallel": 100.0, "wide": 200.0}
    # Another network of that name counts anew.
    config = create_config(data_dir, parallel={}, wide={"backbone": {"width": 24}})
    measure.measure_speeds(create_plan(read_comparison(config)), tmp_path, print)
    assert timed == ["parallel", "wide", "wide"]


def test_a_dry_run_of_a_comparison_names_its_variants_and_leaves_nothing(
    data_dir, tmp_path
):
    config = create_config(data_dir, parallel={}, wide={"backbone": {"width": 16}})
    comparison = read_comparison(config)
    said = describe_comparison(comparison, tmp_path / "new")
    assert all(f"{name} (" in said for name in comparison.runs)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_goes_on_where_it_stopped(compared, tmp_path, no_plots):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    first = points_of(tmp_path, "parallel-0")
    unevaluated = tmp_path / "runs" / "twin-0"
    only_first = {"2": points_of(tmp_path, "twin-0")["2"]}
    (unevaluated / "points.json").write_text(json.dumps(only_first))
    trained = (unevaluated / "metrics.jsonl").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "runs" / "other-0")
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    # What was done is kept, with the seconds that it took.
    assert points_of(tmp_path, "parallel-0") == first
    # What was trained is evaluated, not trained again.
    assert (unevaluated / "metrics.jsonl").stat().st_mtime_ns == trained
    for run in ("twin-0", "other-0"):
        again, before = points_of(tmp_path, run), points_of(workdir, run)
        assert again["4"]["noise_levels"] == before["4"]["noise_levels"]
        assert again["4"]["frechet_pixels"] == before["4"]["frechet_pixels"]


def test_another_seed_is_another_run_in_the_same_tables(compared, tmp_path, no_plots):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = copy.deepcopy(config)
    config.compare.seeds = (0, 1)
    del config.variants["twin"], config.variants["other"]
    # A variant that is left out is another comparison.
    with pytest.raises(InputError, match=r"holds another comparison"):
        compare(read_comparison(config), tmp_path)
    (tmp_path / "config.json").unlink()
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    assert points_of(tmp_path, "parallel-0") != points_of(tmp_path, "parallel-1")
    record = json.loads((tmp_path / "compare.json").read_text())
    assert [run["seed"] for run in record["variants"][0]["runs"]] == [0, 1]
    assert record["verdict"] == []  # there is nobody else


def test_tables_and_plots_are_written(compared):
    _, workdir = compared
    text = (workdir / "compare.md").read_text()
    assert all(f"| {name} |" in text for name in ("parallel", "twin", "other"))
    assert "No verdict yet" in text  # of one seed
    for name in ("quality", "noise_levels", "diversity", "samples"):
        assert (workdir / f"{name}.png").stat().st_size > 1000
        assert f"]({name}.png)" in text
    record = json.loads((workdir / "compare.json").read_text())
    assert sorted(record["ranking"]) == ["other", "parallel", "twin"]
    assert record["learning_rates"] == []
    assert record["scores"]["frechet_pixels"]["better"] == "down"
    runs = [run for variant in record["variants"] for run in variant["runs"]]
    assert all(run["training_seconds"] > 0 for run in runs)


def test_a_row_of_real_images_has_the_labels_of_the_drawn_ones():
    shape = (4, 2, 2, 1)
    real = LabelledImages(
        np.arange(16, dtype=np.uint8).reshape(shape), np.array([1, 0, 1, 2], np.int32)
    )
    found = plots._like(np.array([0, 1, 1, 1, 2]), real, shape[1:])
    expected = [real.images[i] for i in (1, 0, 2)] + [np.full(shape[1:], 255)]
    np.testing.assert_array_equal(found, [*expected, real.images[3]])


@pytest.fixture(scope="module")
def searched(data_dir, tmp_path_factory):
    """A comparison that chose among three rates, one of which no loss survives."""
    workdir = tmp_path_factory.mktemp("searched")
    config = create_config(data_dir)
    config.base.optimizer.warmup_steps = 0
    config.compare.update(learning_rates=(1e30, 1e-5, 1e-2), search_share=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "plot_comparison", lambda *_: None)
        patch.setattr(training_log, "MAX_BAD_STEPS", 1)
        assert compare(read_comparison(config), workdir) == EXIT_DONE
    return config, workdir


def test_each_variant_is_trained_with_the_rate_of_the_least_loss(searched):
    _, workdir = searched
    record = json.loads((workdir / "compare.json").read_text())
    tried = {row["learning_rate"]: row for row in record["learning_rates"]}
    assert set(tried) == {1e-5, 1e-2, 1e30}
    assert {(row["seed"], row["num_steps"]) for row in tried.values()} == {(1000, 2)}
    assert tried[1e30]["held_out_loss"] is None
    losses = {rate: tried[rate]["held_out_loss"] for rate in (1e-5, 1e-2)}
    (chosen,) = (rate for rate, row in tried.items() if row["chosen"])
    assert losses[chosen] == min(losses.values())
    (variant,) = record["variants"]
    assert variant["learning_rate"] == chosen
    trained = load(workdir / "runs" / "parallel-0")
    assert trained.config.optimizer.learning_rate == chosen
    # The losses are those of the runs that lie there.
    measured = HeldOutLosses(trained.experiment)
    for rate, loss in losses.items():
        run = load(workdir / "search" / f"parallel-{rate!r}")
        assert (run.step, run.config.seed) == (2, 1000)
        found = measured(run.params)["eps"]
        assert loss == pytest.approx(sum(found) / len(found), rel=1e-6)
    assert "| diverged |" in (workdir / "compare.md").read_text()


def test_a_search_goes_on_where_it_stopped(searched, tmp_path, no_plots, capsys):
    config, workdir = searched
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "learning_rates.json"
    written = json.loads(path.read_text())
    kept = [row for row in written["tried"] if row["learning_rate"] != 1e-5]
    write_checked(path, {"tried": kept})  # the run itself is done
    run = tmp_path / "search" / "parallel-1e-05" / "metrics.jsonl"
    trained = run.stat().st_mtime_ns
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    said = capsys.readouterr().out
    assert "learning rate 1e-05: held-out loss" in said
    assert said.count("held-out loss") == 1  # the others were not tried again
    assert run.stat().st_mtime_ns == trained
    again = json.loads(path.read_text())["tried"]
    assert sorted(map(str, again)) == sorted(map(str, written["tried"]))
    other = copy.deepcopy(config)
    other.compare.learning_rates = (1e-5, 1e-2)
    with pytest.raises(InputError, match=r"holds another comparison"):
        compare(read_comparison(other), tmp_path)


def test_rates_that_are_never_reached_are_refused(data_dir, tmp_path):
    config = create_config(data_dir)
    config.compare.learning_rates = (1e-3, 1e-2)
    with pytest.raises(InputError, match=r"1 steps, .*more than .*warmup_steps=200"):
        compare(read_comparison(config), tmp_path)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("name", ["dig_mix", "uvit", "dit"])
def test_the_chosen_width_costs_nearest_to_the_reference(name, monkeypatch):
    config = read_config_file(str(CONFIGS / "compare_digits.py"))
    section = {"name": name, "num_classes": 10, "depth": 2}
    if name != "dig_mix":
        section["num_heads"] = 4
    variant = create_experiment(
        vary(config.base, "other", {"backbone": {**section, "width": 32}})
    )
    counted = {}

    def count(experiment):  # each takes a second
        width = experiment.backbone_options.keywords["width"]
        if width not in counted:
            counted[width] = count_costs(experiment.backbone)
        return counted[width]

    monkeypatch.setattr(comparison_plan, "_count", count)
    for width in range(24, 89, 8):
        count(variant.changed({"backbone.width": width}))
    for budget in ("macs", "parameters"):
        costs = {
            width: found.params
            if budget == "parameters"
            else found.macs + found.attention_macs
            for width, found in counted.items()
        }
        target = 0.4 * costs[48] + 0.6 * costs[56]  # nearer to the latter
        options = CompareOptions(reference="parallel", budget=budget, width_multiple=8)
        matched = match_width(variant, target, options)
        chosen = matched.backbone_options.keywords["width"]
        assert chosen == min(costs, key=lambda width: abs(costs[width] - target))


@pytest.mark.parametrize("size", ["gpu", "small"])
@pytest.mark.parametrize(
    ("file", "fitted"),
    [
        ("compare_fashion_mnist", ("dit", "uvit")),
        ("ladder_fashion_mnist", ("relational_one_scale", "relational_hourglass")),
    ],
)
def test_networks_for_fashion_mnist_cost_what_dig_does(file, fitted, size):
    """To 4%, with attention's products, as the configurations say."""
    config = read_config_file(str(CONFIGS / f"{file}.py:{size}"))
    runs, macs = read_comparison(config).runs, {}
    for name in ("parallel", *fitted):
        few = with_values(runs[name], {"backbone.unroll": 1})  # quick to trace
        costs = count_costs(create_experiment(few).backbone)
        macs[name] = costs.macs + costs.attention_macs
    assert macs == pytest.approx(dict.fromkeys(macs, macs["parallel"]), rel=0.04)


def test_equal_seconds_are_as_many_steps_as_the_speeds_allow(data_dir):
    config = create_config(data_dir, parallel={}, slow={"backbone": {"hops": 3}})
    config.compare.budget = "seconds"
    config.base.training.num_steps = 1000
    plan = create_plan(read_comparison(config))
    speeds = {"parallel": SPEED, "slow": SPEED._replace(images_per_second=40.0)}
    steps = {
        v.name: v.experiment.training.num_steps
        for v in with_equal_seconds(plan, speeds).variants
    }
    assert steps == {"parallel": 1000, "slow": 400}
    widths = {v.experiment.section("backbone")["width"] for v in plan.variants}
    assert widths == {8}  # time is equal, so widths are as given
    # Two minutes of batches of 8, at 100 and at 40 images a second.
    plan = plan._replace(options=replace(plan.options, minutes=2.0))
    steps = [
        v.experiment.training.num_steps
        for v in with_equal_seconds(plan, speeds).variants
    ]
    assert steps == [1500, 600]


def test_the_table_holds_means_deviations_and_paired_differences(
    data_dir, tmp_path, rng
):
    config = create_config(data_dir, parallel={}, wide={})
    config.compare.seeds = (0, 1, 2)
    plan = create_plan(read_comparison(config))
    values = {"parallel": rng.uniform(1, 2, 3), "wide": rng.uniform(1, 2, 3)}
    for name, scores in values.items():
        for seed, score in enumerate(scores):
            folder = tmp_path / "runs" / f"{name}-{seed}"
            folder.mkdir(parents=True)
            point = {
                "frechet_pixels": score,
                "frechet_pixels_test": 0.5,
                "noise_levels": {"eps": [1.0] * 10, "x0": [0.5] * 10},
            }
            (folder / "points.json").write_text(json.dumps({"4": point}))
    speeds = dict.fromkeys(values, SPEED)
    text = format_comparison(comparison_record(plan, speeds, tmp_path))
    wide, difference = values["wide"], values["wide"] - values["parallel"]
    error = np.std(difference, ddof=1) / np.sqrt(3)
    place = 1 if wide.mean() < values["parallel"].mean() else 2
    cells = ["1.0000 ± 0.0000", "0.5000 ± 0.0000"]
    cells += [f"{wide.mean():.4f} ± {np.std(wide, ddof=1):.4f}"]
    (row,) = (line for line in text.splitlines() if f"| {place} | wide |" in line)
    assert [cell.strip(" *") for cell in row.split("|")[4:7]] == cells
    pair = f"| {difference.mean():+.4f} ± {error:.4f} | "
    assert pair in next(
        line for line in text.splitlines() if line.startswith("| wide | parallel |")
    )
    assert "| real test images |  |  |  | 0.5000 |" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.compare.update(reference="nobody"), r"'nobody'. Variants: para"),
        (lambda c: c.compare.update(seeds=(1, 1)), r"different whole numbers"),
        (lambda c: c.compare.update(seeds=()), r"different whole numbers"),
        (lambda c: c.compare.update(minutes=-1.0), r"minutes must be .*got -1"),
        (lambda c: c.compare.update(learning_rates=(1e-3,)), r"two or more different"),
        (
            lambda c: c.compare.update(learning_rates=(1e-3, 0.0)),
            r"learning_rates must be .* above 0, .*got \(0\.001, 0\.0\)",
        ),
        (lambda c: c.compare.update(learning_rates=(0.1, 0.1)), r"different numbers"),
        (
            lambda c: c.compare.update(learning_rates=(0.1, float("nan"))),
            r"different numbers",
        ),
        (
            lambda c: c.compare.update(learning_rates=(0.1, 0.2), search_seed=0),
            r"search_seed must be none of compare\.seeds \(0,\), .*got 0",
        ),
        (lambda c: c.compare.update(search_share=1.5), r"search_share must be .*1\.5"),
        (lambda c: c.compare.update(budget="flops"), r"'macs', .*got 'flops'"),
        (lambda c: c.compare.update(num_points=9), r"'parallel': 4 steps cannot"),
        (lambda c: c.compare.update(kind="x"), r"config\.compare\.kind\. Available"),
        (
            lambda c: delattr(c, "base"),
            r"base, compare, variants .* got compare, variants",
        ),
        (lambda c: delattr(c.base, "sde"), r"base of the comparison lacks sde"),
        (lambda c: delattr(c.variants, "parallel"), r"needs variants"),
        (
            lambda c: c.variants.update({"a/b": ConfigDict()}),
            r"letters, digits.*'a/b'",
        ),
        (
            lambda c: c.variants.update({"x": ConfigDict({"modl": {}})}),
            r"'x' has an unknown section 'modl'",
        ),
        (
            lambda c: c.variants.update({"x": ConfigDict({"backbone": {"conv": "g"}})}),
            r"config\.backbone\.conv.*got 'g'",
        ),
        (
            lambda c: c.variants.update({"x": ConfigDict({"sample": {"eta": 2.0}})}),
            r"'x': .*eta.* 1, got 2",
        ),
    ],
)
def test_comparisons_that_cannot_be_are_refused(data_dir, change, said):
    config = create_config(data_dir)
    change(config)
    with pytest.raises(InputError, match=said):
        create_plan(read_comparison(config))


def test_a_score_that_is_not_taken_cannot_be_plotted(compared, tmp_path):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs" / "parallel-0" / "points.json").unlink()
    config = copy.deepcopy(config)
    config.compare.quality = "fid"
    with pytest.raises(InputError, match=r"'fid'.*Available: frechet_pixels"):
        compare(read_comparison(config), tmp_path)


def test_a_score_that_a_reference_file_is_too_small_for_is_refused_first(
    data_dir, tmp_path
):
    """Of means and covariances alone there are no precision and recall."""
    file = tmp_path / "moments.npz"
    dim = num_features("classifier")
    np.savez(file, mu=np.zeros(dim), sigma=np.eye(dim))
    config = create_config(data_dir)
    config.base.evaluation.update(
        features="classifier",
        reference=str(file),
        allow_other_reference=True,
        allow_few_images=True,
    )
    config.compare.quality = "precision_digits10"
    with pytest.raises(InputError, match=r"fd_digits10.*moments\.npz have no.*recall"):
        create_plan(read_comparison(config))
    config.compare.quality = "fd_digits10"
    create_plan(read_comparison(config))


def test_a_run_without_a_sound_end_goes_on_from_its_last_good_checkpoint(
    compared, tmp_path, no_plots
):
    """Killed in its last save; and a flipped digit among its scores."""
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    killed, flipped = (tmp_path / "runs" / f"{name}-0" for name in ("twin", "other"))
    (killed / "checkpoints" / "4" / "commit_success.txt").unlink()
    damaged = next((flipped / "checkpoints" / "4" / "train" / "d").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-20])
    text = (flipped / "points.json").read_text()
    value = f'"frechet_pixels": {points_of(workdir, "other-0")["2"]["frechet_pixels"]}'
    assert text.count(value) == 1
    changed = value[:-1] + ("1" if value[-1] != "1" else "2")
    (flipped / "points.json").write_text(text.replace(value, changed))
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    for run in ("twin-0", "other-0"):
        again, before = points_of(tmp_path, run), points_of(workdir, run)
        for step in ("2", "4"):
            assert again[step]["frechet_pixels"] == before[step]["frechet_pixels"]
            assert again[step]["noise_levels"] == before[step]["noise_levels"]
