"""What a comparison would train: at equal compute, and nothing that cannot be."""

from dataclasses import replace

import numpy as np
import pytest
from ml_collections import ConfigDict
from small_comparison import CONFIGS, SPEED, create_config

from dig_jax.comparison import plan as comparison_plan
from dig_jax.comparison.equal_seconds import in_equal_seconds
from dig_jax.comparison.plan import create_plan, match_width
from dig_jax.comparison.run import describe_comparison
from dig_jax.config import read_config_file, with_values
from dig_jax.config.comparison import read_comparison, vary
from dig_jax.costs.summary import count_costs
from dig_jax.errors import InputError
from dig_jax.evaluation.checks import num_features
from dig_jax.experiment import create_experiment
from dig_jax.options.compare import CompareOptions


def test_a_dry_run_of_a_comparison_names_its_variants_and_leaves_nothing(
    data_dir, tmp_path
):
    config = create_config(data_dir, parallel={}, wide={"backbone": {"width": 16}})
    comparison = read_comparison(config)
    said = describe_comparison(comparison, tmp_path / "new")
    assert all(f"{name} (" in said for name in comparison.runs)
    assert list(tmp_path.iterdir()) == []


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


def test_equal_seconds_are_as_many_steps_as_the_speeds_allow(data_dir, tmp_path):
    config = create_config(data_dir, parallel={}, slow={"backbone": {"hops": 3}})
    config.compare.budget = "seconds"
    config.base.training.num_steps = 1000
    plan = create_plan(read_comparison(config))
    speeds = {"parallel": SPEED, "slow": SPEED._replace(images_per_second=40.0)}

    def steps_of(plan, speeds):
        variants = in_equal_seconds(plan, speeds, tmp_path).variants
        return {v.name: v.experiment.training.num_steps for v in variants}

    assert steps_of(plan, speeds) == {"parallel": 1000, "slow": 400}
    widths = {v.experiment.section("backbone")["width"] for v in plan.variants}
    assert widths == {8}  # time is equal, so widths are as given
    # Two minutes of batches of 8, at 100 and at 40 images a second.
    plan = plan._replace(options=replace(plan.options, minutes=2.0))
    decided = {"parallel": 1500, "slow": 600}
    assert steps_of(plan, speeds) == decided
    # Of runs that have begun, new speeds change nothing.
    (tmp_path / "runs").mkdir()
    slower = {"parallel": SPEED._replace(images_per_second=10.0), "slow": SPEED}
    assert steps_of(plan, slower) == decided
    path = tmp_path / "num_steps.json"
    path.write_text(path.read_text().replace("1500", "1501"))
    with pytest.raises(InputError, match=r"num_steps.json .*Delete it and the folders"):
        steps_of(plan, slower)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.compare.update(reference="nobody"), r"'nobody'. Variants: para"),
        (lambda c: c.compare.update(controls=("x",)), r"controls 'x'. Variants: para"),
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
