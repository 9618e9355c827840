"""The search for a learning rate for each variant."""

import copy
import json
import shutil
from contextlib import ExitStack

import pytest
from small_comparison import create_config

from dig_jax.comparison import report, together
from dig_jax.comparison.held_out import HeldOutLosses
from dig_jax.comparison.run import compare
from dig_jax.comparison.together import TAKEN
from dig_jax.config.comparison import read_comparison
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.files.checked_json import write_checked
from dig_jax.run import load
from dig_jax.storage.workdir_lock import try_run
from dig_jax.training import log as training_log


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


def test_a_rate_that_another_process_tries_is_waited_for(
    searched, tmp_path, no_plots, monkeypatch, capsys
):
    config, workdir = searched
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    path, folder = tmp_path / "learning_rates.json", tmp_path / "search/parallel-1e-05"
    all_of_them = path.read_text()
    tried = json.loads(all_of_them)["tried"]
    kept = [row for row in tried if row["learning_rate"] != 1e-5]
    write_checked(path, {"tried": kept})
    shutil.rmtree(folder)
    folder.mkdir()
    with ExitStack() as another:
        assert another.enter_context(try_run(folder, TAKEN)) is None

        def end(seconds):
            path.write_text(all_of_them)
            another.close()

        monkeypatch.setattr(together, "sleep", end)
        assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    said = capsys.readouterr().out
    assert "waiting for parallel, learning rate 1e-05 (process " in said
    assert "held-out loss" not in said  # it was not tried again
    record = json.loads((tmp_path / "compare.json").read_text())
    assert {row["learning_rate"] for row in record["learning_rates"]} == {
        1e-5,
        1e-2,
        1e30,
    }


def test_rates_that_are_never_reached_are_refused(data_dir, tmp_path):
    config = create_config(data_dir)
    config.compare.learning_rates = (1e-3, 1e-2)
    with pytest.raises(InputError, match=r"1 steps, .*more than .*warmup_steps=200"):
        compare(read_comparison(config), tmp_path)
    assert not (tmp_path / "search").exists()
