"""Speeds are measured once."""

import json

from small_comparison import SPEED, create_config

from dig_jax.comparison import measure
from dig_jax.comparison.plan import create_plan
from dig_jax.config.comparison import read_comparison


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
