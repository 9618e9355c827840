"""The command line: exit codes, and one clear message for each mistake."""

import contextlib
import io
import json
import re
import subprocess
import sys

import pytest
from ml_collections import ConfigDict
from tiny_flags import CIFAR10, DIGITS, SUMMARY, TINY, TWO

from dig_jax import main as command_line
from dig_jax.cli.command_line import _override as override
from dig_jax.cli.flag_table import FLAGS, MODE_HELP
from dig_jax.config import config_to_json, load_config_file
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE

pytestmark = pytest.mark.usefixtures("without_optimizations")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], [DIGITS, "--help"]])
def test_help_names_every_mode_and_flag(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (EXIT_DONE, "")
    for name in (*command_line.MODES, "--config=", "--workdir", "--out", "--step"):
        assert name in out
    assert tuple(MODE_HELP) == tuple(command_line.MODES)
    assert all(f"  {flag.usage}  " in out for flag in FLAGS)
    assert {mode for flag in FLAGS for mode in flag.modes} <= set(MODE_HELP)
    assert max(map(len, out.splitlines())) <= 88


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # Flags.
        ([DIGITS, "--mode=smmary"], r"mode 'smmary'\. Available: train, sample, eval"),
        ([DIGITS, SUMMARY, "--jsn"], r"'jsn'.*Available: --config, .*--json"),
        ([DIGITS, SUMMARY, "--step=x"], r"--step=x"),
        ([DIGITS, SUMMARY, "--step=-1"], r"--step=-1"),
        (
            [DIGITS, "--search_batch"],
            r"--search_batch goes with --mode=compile, and --mode=train does nothing",
        ),
        ([DIGITS, SUMMARY, "--seeds=2"], r"--seeds goes with --mode=evaluate, and"),
        ([DIGITS, "--mode=demo", "--port=abc"], r"--port must .* 0 on, got 'abc'\.$"),
        ([DIGITS, "--mode=demo", "--port=-1"], r"--port must .* 0 on, got '-1'\.$"),
        ([DIGITS, "--dry_run=x"], r"--dry_run must be true or false, got 'x'\.$"),
        ([DIGITS, "--workdir=pretrained:nope"], r"Unknown pretrained model 'nope'"),
        ([DIGITS, SUMMARY, "--workdir"], r"Missing value.*--workdir"),
        ([DIGITS, SUMMARY, "width=3"], r"--name=value, got 'width=3'"),
        ([SUMMARY], r"--config=FILE is needed"),
        ([SUMMARY, "--config"], r"--config needs a Python file"),
        ([SUMMARY, "--config=no/such.py"], r"'no/such\.py', which does not exist"),
        ([DIGITS + ":large", SUMMARY], r"digits\.py:large"),
        ([DIGITS], r"--mode=train needs --workdir=DIR"),
        (["--mode=sample"], r"--mode=sample needs --workdir=DIR"),
        (["--mode=evaluate"], r"--mode=evaluate needs --workdir=DIR"),
        # Several processes.
        (
            [DIGITS, "--num_processes=2"],
            r"--coordinator_address.*got --num_processes=2",
        ),
        ([DIGITS, "--distributed=off", *TWO], r"alone, got .*--distributed=off\.$"),
        ([DIGITS, *TWO, "--process_id=2"], r"must lie in 0 to 1 .*got 2"),
        ([DIGITS, *TWO, "--coordinator_address=h"], r"HOST:PORT.*got 'h'"),
        ([DIGITS, SUMMARY, *TWO], r"--mode=train alone.*--mode=summary drives all"),
        ([DIGITS, "--distributed=on"], r"off.*auto"),
        # Keys.
        ([DIGITS, SUMMARY, "--config.bakbone.width=3"], r"bakbone.*: backbone, data"),
        ([DIGITS, SUMMARY, "--config.backbone.widht=3"], r"widht.*depth, .*width"),
        (
            [DIGITS, SUMMARY, "--config.backbone=3"],
            r"is a section. Keys in it: .*width",
        ),
        (
            [DIGITS, SUMMARY, "--config.backbone.width.x=3"],
            r"config.backbone.width has no keys",
        ),
        ([DIGITS, SUMMARY, "--config.seed.x=3"], r"config\.seed has no keys"),
        ([DIGITS, SUMMARY, "--config.=3"], r"Unknown section"),
        ([DIGITS, SUMMARY, "--config.backbone.width"], r"width needs a value"),
        ([DIGITS, SUMMARY, "--config.backbone.width", "16"], r"'16'|needs a value"),
        # Values of a wrong type.
        ([DIGITS, SUMMARY, "--config.backbone.width=abc"], r"whole number, got 'abc'"),
        ([DIGITS, SUMMARY, "--config.backbone.width=2.5"], r"whole number, got '2\.5'"),
        ([DIGITS, SUMMARY, "--config.backbone.width=2,5"], r"width.*got \(2, 5\)"),
        ([DIGITS, SUMMARY, "--config.backbone.remat=maybe"], r"true or false.*'maybe'"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=x"], r"beta_max.*a number, got 'x'"),
        ([DIGITS, SUMMARY, "--config.data.image_size=8x16"], r"image_size.*'8x16'"),
        ([DIGITS, SUMMARY, "--config.data.image_size=8,"], r"image_size"),
        ([DIGITS, SUMMARY, "--config.seed=-1"], r"seed must be .* got -1"),
        # Values that do not exist or do not fit.
        ([DIGITS, SUMMARY, "--config.backbone.name=unet"], r"'unet'.*: .*dig_mix"),
        ([DIGITS, SUMMARY, "--config.backbone.width=0"], r"greater than 0, got 0"),
        ([DIGITS, SUMMARY, "--config.backbone.width=-4"], r"greater than 0, got -4"),
        ([DIGITS, SUMMARY, "--config.backbone.depth=3"], r"even.*got 3"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=3"], r"divisible by 3.*8x8"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=4,2"], r"ascending.*4, 2"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=()"], r"at least one"),
        ([DIGITS, SUMMARY, "--config.backbone.patch_sizes=a,b"], r"patch_sizes.*'a,b'"),
        (["--nodry_run=1"], r"dry_run.*argument"),
        ([DIGITS, SUMMARY, "--config.backbone.dtype=int8"], r"'bfloat16', got 'int8'"),
        ([DIGITS, SUMMARY, "--config.data.channels=2"], r"channels.*1, 3 or 4, got 2"),
        (
            [DIGITS, SUMMARY, "--config.sde.name=ve"],
            r"'ve'\. Available: edm, .*vp_linear",
        ),
        ([DIGITS, SUMMARY, "--config.sde.beta_min=-1"], r"greater than 0, got -1"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=0.01"], r"0\.1, got 0\.01"),
        ([DIGITS, SUMMARY, "--config.sde.beta_max=inf"], r"must be finite, got inf"),
        (
            [DIGITS, SUMMARY, "--config.objective.prediction=score"],
            r"'edm', got 'score'",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else "",
)
def test_a_mistake_gets_one_line(refuse, arguments, said):
    assert re.search(said, refuse(*arguments))


@pytest.fixture(scope="module")
def summary():
    """What --mode=summary prints of the tiny run."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert command_line.main([*TINY, SUMMARY]) == EXIT_DONE
    return printed.getvalue()


@pytest.mark.parametrize(
    "spelling",
    [
        ["--config.backbone.patch_sizes=(4,8)"],
        ["--config.backbone.patch_sizes=4,8"],
        ["--config.backbone.patch_sizes=[4,8]"],
        ["-config.backbone.patch_sizes=4,8"],
        ["--config.backbone.remat=false"],
        ["--config.backbone.remat=0"],
        ["--config.sample.labels=0,1,2"],
        ["--config.data.image_size=8,8"],
        ["--config.data.image_size=(8,8)"],
        ["-json=false"],
    ],
)
def test_ways_to_spell_the_same_network(run, summary, spelling):
    code, out, err = run(*TINY, SUMMARY, *spelling)
    assert (code, err) == (EXIT_DONE, "")
    assert out == summary


@pytest.mark.parametrize(
    ("before", "given", "read"),
    [
        (("copies",), "a,b", ("a", "b")),
        (("copies",), "a", ("a",)),
        (("copies",), "", ()),
        (("copies",), "('a', 'b')", ("a", "b")),
        ((2, 4), "2", (2,)),
        ((), "", ()),
    ],
)
def test_several_values_are_words_with_commas_or_as_python_writes_them(
    before, given, read
):
    config = ConfigDict({"evaluation": {"metrics": before}})
    changed = override(config, [f"--config.evaluation.metrics={given}"])
    assert changed.evaluation.metrics == read


def test_words_are_several_where_the_file_leaves_them_out(run, tmp_path):
    code, _, _ = run(
        *(DIGITS, "--dry_run", f"--workdir={tmp_path}"),
        *("--config.evaluation.metrics=copies,frechet_pixels",),
        *("--config.logging.writers=tensorboard,",),
        f"--config.logging.tensorboard_dir={tmp_path}",
    )
    assert code == EXIT_DONE


def test_a_configuration_beside_a_run_is_told_to_be_passed_over(run, tmp_path):
    _, _, err = run(DIGITS, "--mode=sample", f"--workdir={tmp_path}")
    assert "config.json is missing" in err  # as ever
    written = config_to_json(load_config_file(DIGITS.removeprefix("--config=")))
    (tmp_path / "config.json").write_text(written)
    _, _, err = run(DIGITS, "--mode=sample", f"--workdir={tmp_path}")
    assert f"is not read: {tmp_path} knows what its run is." in err


def test_config_file_may_stand_after_a_space_or_a_single_dash(run):
    file = DIGITS.partition("=")[2]
    expected = run(DIGITS, SUMMARY)
    assert expected[0] == EXIT_DONE
    assert run("--config", file, "--mode", "summary") == expected
    assert run("-config", file, "-mode=summary") == expected


def test_images_need_not_be_square(run):
    code, out, _ = run(*TINY, SUMMARY, "--json", "--config.data.image_size=(8,16)")
    assert code == EXIT_DONE
    assert json.loads(out)["image_shape"] == [8, 16, 1]


def test_summary_as_json_has_the_graphs_own_counts(run):
    patches = "--config.backbone.patch_sizes=(2,4)"
    code, out, err = run(*TINY, SUMMARY, "--json", patches)
    assert (code, err) == (EXIT_DONE, "")
    record = json.loads(out)
    assert record["backbone"] == "dig_parallel"
    assert record["params"] > 0
    assert record["macs_per_image"] > 0
    # 4x4 and 2x2 patches, time and context.
    assert record["num_nodes"] == 16 + 4 + 2
    # Grid edges of both scales and hubs to each patch, in both directions.
    assert record["num_edges"] == 2 * (2 * 4 * 3 + 2 * 2 * 1 + 2 * 20)


def test_summary_needs_no_data(run, tmp_path):
    missing = f"--config.data.data_dir={tmp_path / 'none'}"
    assert run(CIFAR10, SUMMARY, missing)[0] == EXIT_DONE
    assert not (tmp_path / "none").exists()


def test_the_module_exits_with_the_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dig_jax.main", "--mode=nope", DIGITS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
    assert done.stderr.startswith("error: Unknown mode 'nope'")
