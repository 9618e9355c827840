"""The loss on held-out images by noise level, during training."""

import pytest
from processes import digits_flags
from trained_runs import SHORT

from dig_jax.errors import EXIT_DONE
from dig_jax.main import main
from dig_jax.reporting.metric_writer import read_metrics

# A network that begins with zeros, and does not come far from there.
UNMOVED = {
    "training.num_steps": 3,
    "training.held_out_every": 2,
    "training.posthoc_ema": False,
    "optimizer.learning_rate": 1e-9,
    "objective.prediction": "eps",
    "objective.loss_space": "eps",
}


def test_a_network_of_zeros_misses_all_of_the_noise(trained_runs, tmp_path, capsys):
    flags = digits_flags(trained_runs.data_dir, SHORT, UNMOVED)
    assert main([*flags, f"--workdir={tmp_path}"]) == EXIT_DONE
    rows = [row for row in read_metrics(tmp_path) if "held_out_loss/mean" in row]
    assert [row["step"] for row in rows] == [2, 3]
    bins = [rows[0][f"held_out_loss/bin_{i:02d}"] for i in range(10)]
    # The mean of eps^2 over 8 images of 64 pixels has a deviation of 1/16.
    assert bins == pytest.approx([1.0] * 10, abs=5 / 16)
    assert len(set(bins)) == 10
    assert rows[0]["held_out_loss/mean"] == pytest.approx(sum(bins) / 10)
    # The same images and the same noise again.
    again = [rows[1][f"held_out_loss/bin_{i:02d}"] for i in range(10)]
    assert again == pytest.approx(bins, rel=1e-4)
    assert "step 2: held-out loss 1." in capsys.readouterr().out
    # A signal at a step saves it and does no more: what was due is made up.
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        "".join(x for x in lines if "held_out_loss" not in x or '"step": 2' in x)
    )
    assert main([*flags, f"--workdir={tmp_path}"]) == EXIT_DONE
    assert "step 3: making up what was due" in capsys.readouterr().out
    assert [r for r in read_metrics(tmp_path) if "held_out_loss/mean" in r] == rows
