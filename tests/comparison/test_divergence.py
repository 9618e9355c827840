"""A run that diverges is a result: it is noted, told, and the others go on."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest
from small_comparison import create_config, points_of

from dig_jax.comparison import run as comparison_run
from dig_jax.comparison.held_out import HeldOutLosses
from dig_jax.comparison.markdown import format_comparison
from dig_jax.comparison.points import read_divergence, write_divergence
from dig_jax.comparison.run import compare
from dig_jax.config.comparison import read_comparison
from dig_jax.errors import EXIT_DONE, NonFiniteError
from dig_jax.report.comparison_page import comparison_page
from dig_jax.run import load
from dig_jax.training import log as training_log


@pytest.fixture(scope="module")
def compared(data_dir, tmp_path_factory):
    """A comparison of two variants, of which the reference comes to no end."""
    workdir = tmp_path_factory.mktemp("compared")
    config = create_config(
        data_dir, wild={"optimizer": {"learning_rate": 1e30}}, parallel={}
    )
    config.compare.reference = "wild"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_log, "MAX_BAD_STEPS", 1)
        assert compare(read_comparison(config), workdir) == EXIT_DONE
    return config, workdir


def test_the_other_runs_go_on(compared):
    _, workdir = compared
    assert points_of(workdir, "wild-0") == {}
    assert "steps in a row were not finite" in str(
        read_divergence(workdir / "runs" / "wild-0")
    )
    assert set(points_of(workdir, "parallel-0")) == {"2", "4"}
    record = json.loads((workdir / "compare.json").read_text())
    assert [v["diverged"] for v in record["variants"]] == [[0], []]
    assert record["ranking"] == ["parallel"]
    text = (workdir / "compare.md").read_text()
    assert "- wild diverged with seed 0: it has no scores." in text
    assert "|  | wild | 0, 1 diverged |" in text
    page = comparison_page(record, workdir)
    assert (page.status, page.state) == ("1 of 2 runs scored, 1 diverged", "done")
    assert "wild diverged with seed 0: it has no scores." in page.to_html()


def test_it_is_not_trained_again(compared, tmp_path, no_plots, capsys):
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs" / "wild-0" / "checkpoints", ignore_errors=True)
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    said = capsys.readouterr().out
    assert f"Delete {tmp_path}/runs/wild-0 to train it again." in said
    assert not (tmp_path / "runs" / "wild-0" / "checkpoints").exists()


def test_a_point_that_cannot_be_scored_is_left_out(
    compared, tmp_path, no_plots, monkeypatch, capsys
):
    """The network may draw what is not finite early, and be sound at its end."""
    config, workdir = compared
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "runs" / "parallel-0"
    score, steps = comparison_run.score_drawn, []

    def fail_first(drawn, scorer):
        steps.append(drawn)
        if len(steps) == 1:
            raise NonFiniteError("an image is not finite")
        return score(drawn, scorer)

    (folder / "points.json").unlink()
    monkeypatch.setattr(comparison_run, "score_drawn", fail_first)
    assert compare(read_comparison(config), tmp_path) == EXIT_DONE
    assert "step 2: not scored: an image is not finite" in capsys.readouterr().out
    assert set(points_of(tmp_path, "parallel-0")) == {"4"}
    assert read_divergence(folder) is None


def test_a_loss_that_is_not_finite_is_no_score(compared):
    run = load(compared[1] / "runs" / "parallel-0")
    losses = HeldOutLosses(run.experiment)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, run.params)
    with pytest.raises(NonFiniteError, match="held-out loss is not finite"):
        losses(broken)


def test_a_note_that_is_damaged_is_no_divergence(tmp_path):
    write_divergence(tmp_path, "the loss is nan")
    assert read_divergence(tmp_path) == "the loss is nan"
    path = tmp_path / "diverged.json"
    path.write_text(path.read_text().replace("nan", "inf"))
    assert read_divergence(tmp_path) is None


def test_a_seed_that_diverged_is_told_beside_those_that_ended(compared):
    record = json.loads((compared[1] / "compare.json").read_text())
    record["variants"][1]["diverged"] = [1, 2]
    text = format_comparison(record)
    assert "| 1 | parallel | 1, 2 diverged |" in text
    told = "parallel diverged with seeds 1, 2: its scores are of other seeds alone"
    assert told in text
