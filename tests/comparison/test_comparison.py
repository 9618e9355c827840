"""Comparisons: every variant is treated alike, and nothing is done twice."""

import copy
import json
import shutil

import jax
import numpy as np
import pytest
from small_comparison import create_config, points_of
from tensorboard_events import read_events

from dig_jax.comparison.points import write_points
from dig_jax.comparison.run import compare
from dig_jax.comparison.same_plan import has_more
from dig_jax.comparison.together import TAKEN
from dig_jax.config.comparison import read_comparison
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.files.checked_json import write_checked
from dig_jax.reporting.metric_writer import EVALUATION
from dig_jax.storage.workdir_lock import try_run


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


def test_runs_that_were_scored_need_no_checkpoints(compared, tmp_path, no_plots):
    """Deleted for their size, or left on the machine where the comparison was begun."""
    config, workdir = compared
    config = copy.deepcopy(config)
    config.base.data.update(data_dir=str(tmp_path / "data"), num_threads=3)
    config.base.mesh = dict(data=1)
    shutil.copytree(
        workdir, tmp_path, dirs_exist_ok=True, ignore=lambda *_: ["checkpoints"]
    )
    half = tmp_path / "runs" / "twin-0"
    (half / "points.json").unlink()
    write_points(half, {"2": points_of(workdir, "twin-0")["2"]})
    before = (tmp_path / "compare.json").read_text()
    (tmp_path / "compare.json").unlink()
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    trained = {p.parent.name for p in tmp_path.glob("runs/*/checkpoints")}
    assert trained == {"twin-0"}  # of which a score was not there
    again = json.loads((tmp_path / "compare.json").read_text())
    assert again["variants"][0] == json.loads(before)["variants"][0]


def test_a_checkpoint_that_is_gone_costs_its_point_alone(compared, tmp_path, no_plots):
    """Nothing is trained again: it would be the same run."""
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs" / "twin-0"
    shutil.rmtree(folder / "checkpoints" / "2")
    (folder / "points.json").unlink()
    trained = (folder / "metrics.jsonl").stat().st_mtime_ns
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == trained
    (point,) = points_of(tmp_path, "twin-0").items()
    before = points_of(workdir, "twin-0")["4"]
    assert (point[0], point[1]["noise_levels"]) == ("4", before["noise_levels"])
    assert "| twin |" in (tmp_path / "compare.md").read_text()


def test_runs_that_another_process_has_are_left_to_it(
    compared, tmp_path, no_plots, capsys
):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    folders = [tmp_path / "runs" / f"{name}-0" for name in ("twin", "other")]
    for folder in folders:
        shutil.rmtree(folder)
        folder.mkdir()
    with try_run(folders[0], TAKEN):
        assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    assert "The rest is others': twin, seed 0 (process " in capsys.readouterr().out
    assert points_of(tmp_path, "twin-0") == {}
    assert set(points_of(tmp_path, "other-0")) == {"2", "4"}
    ranking = json.loads((tmp_path / "compare.json").read_text())["ranking"]
    assert sorted(ranking) == ["other", "parallel"]


def test_several_processes_of_jax_are_refused(compared, tmp_path, monkeypatch):
    """They would time their steps each for itself, and wait for each other."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="start each without --distributed"):
        compare(read_comparison(compared[0]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_whoever_asks_for_less_does_not_write_over_more(compared, tmp_path, no_plots):
    """Of two processes in one workdir the later one was started with a seed more."""
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    more = copy.deepcopy(config)
    more.compare.seeds = (0, 1)
    path, less = tmp_path / "config.json", read_comparison(config)
    assert not has_more(less, tmp_path)
    write_checked(path, read_comparison(more).written)
    assert has_more(less, tmp_path)
    assert not has_more(read_comparison(more), tmp_path)


def test_another_comparison_is_refused_by_its_keys(compared, tmp_path):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = copy.deepcopy(config)
    config.compare.num_points = 4
    config.base.training.batch_size = 4
    config.variants.other.backbone.mlp_ratio = 3.0
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError) as refused:
        compare(read_comparison(config), tmp_path)
    assert (
        "(there -> here): compare.num_points: 2 -> 4; "
        "training.batch_size: 8 -> 4; backbone.mlp_ratio: 2.0 -> 3.0 (other)."
    ) in str(refused.value)
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_seed_is_another_run_in_the_same_tables(compared, tmp_path, no_plots):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = copy.deepcopy(config)
    config.compare.update(seeds=(0, 1), controls=("parallel",))
    del config.variants["twin"], config.variants["other"]
    with pytest.raises(InputError, match="of other, twin too, which this one leaves"):
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


def test_a_score_that_is_not_taken_cannot_be_plotted(compared, tmp_path):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs" / "parallel-0" / "points.json").unlink()
    config = copy.deepcopy(config)
    config.compare.quality = "fid"
    with pytest.raises(InputError, match=r"'fid'.*Available: frechet_pixels"):
        compare(read_comparison(config), tmp_path)


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
