"""A run that begins with the averaged parameters of another."""

import json

import pytest
from processes import digits_flags
from trained_runs import SHORT

from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE
from dig_jax.export.export import export_run
from dig_jax.main import main
from dig_jax.options import SampleOptions
from dig_jax.run import load
from dig_jax.storage.checkpoints import Checkpoints

# The first update of a warm-up is by 0.
UNMOVED = {"training.num_steps": 1, "optimizer.warmup_steps": 100}


@pytest.fixture
def begin(trained_runs, tmp_path, capsys):
    """Start a run; returns its exit code and what it said."""

    def begin(source, *changes, workdir="begun"):
        flags = digits_flags(trained_runs.data_dir, SHORT, UNMOVED, *changes)
        more = [f"--init_from={source}"] if source else []
        code = main([*flags, *more, f"--workdir={tmp_path / workdir}"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return begin


def test_a_dry_run_looks_where_it_would_begin(trained_runs, tmp_path, capsys):
    flags = digits_flags(trained_runs.data_dir, SHORT, UNMOVED)
    dry = [*flags, "--dry_run", f"--workdir={tmp_path / 'new'}"]
    assert main([*dry, f"--init_from={trained_runs.workdir()}"]) == EXIT_DONE
    assert main([*dry, f"--init_from={tmp_path / 'nowhere'}"]) == EXIT_BAD_INPUT
    assert f"{tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_run_begins_with_anothers_averages_and_says_so(trained_runs, begin, tmp_path):
    source = load(trained_runs.workdir())
    code, said = begin(source.workdir)
    assert code == EXIT_DONE
    begun = load(tmp_path / "begun")
    assert begun.parameters_digest == source.parameters_digest
    record = {
        "workdir": str(source.workdir),
        "step": 4,
        "parameters_digest": source.parameters_digest,
    }
    with Checkpoints(tmp_path / "begun" / "checkpoints", read_only=True) as kept:
        assert kept.read_meta()["init_from"] == record
    assert f"step 4 of {source.workdir}" in said
    # It goes on so, and no other way.
    code, said = begin(source.workdir, {"training.num_steps": 2})
    assert (code, "resumed at step 1" in said) == (EXIT_DONE, True)
    assert load(tmp_path / "begun").init_from == record
    code, said = begin("")
    assert (code, "training.init_from: '/" in said) == (78, True)
    # Its export says it too, and a run may begin with that.
    folder = tmp_path / "export"
    export_run(
        load(tmp_path / "begun"), SampleOptions(num_steps=1), folder, platforms=["cpu"]
    )
    assert f"step 4 of {source.workdir}" in (folder / "README.md").read_text()
    code, said = begin(folder, workdir="from_export")
    digests = [load(tmp_path / n).parameters_digest for n in ("begun", "from_export")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone.num_classes": 0}, "(10 classes there, 0 here)"),
        ({"backbone.width": 32}, ", 32], got float32["),
    ],
)
def test_parameters_that_do_not_fit_are_named(
    trained_runs, begin, tmp_path, change, said
):
    source = trained_runs.workdir()
    code, message = begin(source, change, {"objective.label_dropout": 0.0})
    assert code == 78
    assert said in message.splitlines()[-1]
    assert not (tmp_path / "begun").exists()


def test_a_workdir_that_began_otherwise_is_refused(trained_runs, begin, tmp_path):
    assert begin("")[0] == EXIT_DONE
    code, message = begin(trained_runs.workdir())
    assert (code, "training.init_from: '' -> " in message) == (78, True)
    config = json.loads((tmp_path / "begun" / "config.json").read_text())
    assert "init_from" not in config["training"]
