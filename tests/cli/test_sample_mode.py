"""--mode=sample: pictures, guidance, and what a run cannot draw."""

import re

import numpy as np
import pytest
from tiny_flags import LAST

from dig_jax.errors import EXIT_DONE
from dig_jax.sampling.samples import read_samples

pytestmark = pytest.mark.usefixtures("without_optimizations")


def test_sampling_writes_what_it_says(run, workdir, tmp_path):
    code, out, _ = run("--mode=sample", f"--workdir={workdir}", f"--out={tmp_path}")
    assert code == EXIT_DONE
    assert str(tmp_path / "samples.npz") in out
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].shape == (10, 8, 8, 1)
        np.testing.assert_array_equal(samples["labels"], np.arange(10))
    assert (tmp_path / "samples.png").exists()


def test_sampling_takes_what_the_configuration_left_at_its_default(
    run, workdir, tmp_path
):
    code, _, err = run(
        "--mode=sample",
        f"--workdir={workdir}",
        f"--out={tmp_path}",
        "--config.sample.solver=dpm_solver_pp",
        "--config.sample.order=1",
        "--config.sample.guidance=2",
        "--config.sample.guidance_interval=(0.2, 0.8)",
        "--config.sample.sigma_rel=0.1",
    )
    assert code == EXIT_DONE, err
    _, provenance = read_samples(tmp_path / "samples.npz")
    assert provenance["parameters"] == "post-hoc ema 0.1"
    assert provenance["guidance"] == 2
    assert provenance["guidance_interval"] == [0.2, 0.8]
    assert (provenance["solver"], provenance["order"]) == ("dpm_solver_pp", 1)


def test_a_run_guides_another(run, workdir, tmp_path):
    code, _, err = run(
        "--mode=sample",
        f"--workdir={workdir}",
        f"--out={tmp_path}",
        "--config.sample.guidance=1.5",
        f"--config.sample.guide={workdir}",
    )
    assert code == EXIT_DONE, err
    assert read_samples(tmp_path / "samples.npz")[1]["guide_step"] == LAST


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.sample.labels=12"], r"0 to 9, got 12"),
        (["--config.sample.solver=x"], r"'x'\. Available: .*euler_maruyama"),
        (["--config.backbone.width=32"], r"backbone\.width: 16 -> 32"),
        (["--step=7"], rf"step 7.*Available: {LAST}"),
        (["--config.sample.order=2"], r"euler_maruyama takes no option 'order'"),
        (["--config.sample.ordr=2"], r"config\.sample\.ordr. Available: .*order"),
        (["--config.sample.time_grid=x"], r"'x'. Available: karras"),
        (["--config.sample.guidance=-1"], r"0 or more"),
        (["--config.sample.sigma_rel=0.7"], r"0\.01 to 0\.25, got 0\.7"),
        (["--config.sample.guide=nowhere"], r"No run in nowhere"),
    ],
)
def test_sampling_refuses_what_the_run_is_not(refuse, workdir, arguments, said):
    message = refuse("--mode=sample", f"--workdir={workdir}", *arguments)
    assert re.search(said, message)
