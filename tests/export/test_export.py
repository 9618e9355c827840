"""Exports: the same images without dig_jax, and no damaged folder is read."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from jax import export
from PIL import Image
from program_cache import compiled_quickly
from safetensors.numpy import load_file, save_file

import dig_jax
from dig_jax.config import load_config_file
from dig_jax.devices.sharding import create_mesh
from dig_jax.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    InputError,
)
from dig_jax.experiment import create_experiment
from dig_jax.export import PLATFORMS, export_run, standalone
from dig_jax.files.paths import open_out
from dig_jax.options import MeshOptions, SampleOptions
from dig_jax.reporting.images import choose_scale, image_grid
from dig_jax.run import Run
from dig_jax.storage.export_folder import PARAMETERS, read_manifest, write_manifest

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
SMALL = {"width": 16, "depth": 2, "hops": 1, "mlp_ratio": 2.0, "num_classes": 10}
TRANSFORMER = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 2}
EVIL = "a|b\n<script>\x1b[2J"
NUM_IMAGES = 20  # more than a group of 16


def create_run(workdir=None, backbone=None, seed=0, **objective):
    """A run with random parameters, also where training begins with zeros."""
    config = load_config_file(str(DIGITS))
    config.unlock()
    if backbone is None:
        config.backbone.update(SMALL)
    else:
        config.backbone = backbone
    config.objective.update(objective)
    experiment = create_experiment(config)
    params = experiment.backbone.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    mesh = create_mesh(MeshOptions(1))
    return Run(experiment, jax.tree.unflatten(tree, moved), 7, mesh, None, workdir)


def draw(folder, num_images=NUM_IMAGES, labels=(), seed=0):
    return standalone.draw_images(folder, num_images, list(labels), seed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return create_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """An export that no test changes."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export_run(run, SampleOptions(solver="heun", num_steps=3), folder)
    return folder


@pytest.fixture
def compile_quickly():
    """For what equals whatever XLA does with it."""
    with compiled_quickly():
        yield


@pytest.fixture
def damaged(exported, tmp_path):
    """A copy of the export, to be damaged."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_process_without_dig_jax_draws_the_same_images(run, exported, tmp_path):
    blocked = "dig_jax", "flax", "ml_collections", "orbax", "jaxtyping"
    script = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    out = tmp_path / "samples.npz"
    arguments = f"--num_images={NUM_IMAGES}", "--labels=3,1", "--seed=5", f"--out={out}"
    command = [sys.executable, "-c", script, exported / "sample.py", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Drew 20 images" in done.stdout
    native = run.sample(NUM_IMAGES, labels=(3, 1), seed=5, solver="heun", num_steps=3)
    with np.load(out) as drawn:
        np.testing.assert_array_equal(drawn["images"], native)
        assert drawn["labels"].tolist() == [3, 1] * (NUM_IMAGES // 2)
    assert len(np.unique(native, axis=0)) == NUM_IMAGES


def check_equal(options, folder, **network):
    run = create_run(**network)
    export_run(run, SampleOptions(**options), folder, platforms=["cpu"])
    images, labels = draw(folder)
    np.testing.assert_array_equal(images, run.sample(NUM_IMAGES, **options))
    num_classes = max(run.experiment.backbone.num_classes, 1)
    assert labels.tolist() == [i % num_classes for i in range(NUM_IMAGES)]


def test_a_sampler_that_branches_equals_the_native_one(tmp_path):
    # As heun above: equal expressions in its branches must not be merged.
    check_equal({"solver": "dpm_solver", "num_steps": 5, "order": 2}, tmp_path)


@pytest.mark.parametrize(
    ("options", "network"),
    [
        ({"guidance_interval": (0.3, 0.8)}, {}),
        ({}, {"backbone": {"name": "uvit", **TRANSFORMER}, "label_dropout": 0.0}),
        ({}, {"backbone": {"name": "dig_mix", **SMALL, "patch_sizes": (2, 4)}}),
    ],
    ids=["guided", "unconditional uvit", "guided dig_mix"],
)
def test_exported_samples_equal_native_ones(
    options, network, tmp_path, compile_quickly
):
    network = {"label_dropout": 0.1, **network}
    if network["label_dropout"]:
        options = {**options, "guidance": 2.0}
    check_equal({"solver": "unipc", "num_steps": 3, **options}, tmp_path, **network)


def test_an_exported_guide_guides(exported, tmp_path, compile_quickly):
    # The guide is an export itself: whatever `dig_jax.load` opens can guide.
    main = create_run(seed=3)
    options = {"num_steps": 3, "guidance": 2.0, "guide": str(exported)}
    export_run(main, SampleOptions(**options), tmp_path / "out", platforms=["cpu"])
    images, _ = draw(tmp_path / "out")
    np.testing.assert_array_equal(images, main.sample(NUM_IMAGES, **options))
    assert (images != main.sample(NUM_IMAGES, num_steps=3)).any()


def test_load_opens_an_export(run, exported):
    opened = dig_jax.load(exported)
    assert (opened.step, opened.sigma_rel) == (run.step, None)
    jax.tree.map(np.testing.assert_array_equal, opened.params, run.params)
    native = run.sample(NUM_IMAGES, solver="heun", num_steps=3)
    np.testing.assert_array_equal(opened.sample(NUM_IMAGES), native)


@pytest.mark.parametrize("num_images", [1, 17])
def test_the_sampler_draws_any_number_of_images(run, exported, num_images):
    blob = bytearray((exported / "sampler.stablehlo").read_bytes())
    sampler = export.deserialize(blob)
    assert sampler.platforms == PLATFORMS
    index = np.arange(3, 3 + num_images, dtype=np.int32)
    parameters = load_file(exported / PARAMETERS)
    inputs = np.int32(0), index, index % 10
    drawn = np.asarray(jax.jit(sampler.call)(parameters, *inputs))
    native = run.sample(23, solver="heun", num_steps=3)[index]
    # Rounding in the last digits of float32, at most one of 255 levels.
    levels = ((drawn + 1) * 127.5).clip(0, 255)
    np.testing.assert_allclose(levels, native, atol=0.51)


def test_each_platform_has_the_program_that_its_machines_make(run, exported):
    graph = run.experiment.backbone.graph.at_scale(0)
    adjacency = "x".join([str(graph.num_padded_nodes)] * 2)

    def multiplies_by_adjacency(file):
        program = export.deserialize(bytearray((exported / file).read_bytes()))
        products = re.findall(r"dot_general.*", program.mlir_module())
        return any(f"tensor<{adjacency}xf32>" in product for product in products)

    # By "Which aggregation" in docs/notes/benchmarks.md.
    assert multiplies_by_adjacency("group_tpu.stablehlo")
    assert not multiplies_by_adjacency("group_cuda.stablehlo")
    assert not multiplies_by_adjacency("group_cpu.stablehlo")
    assert multiplies_by_adjacency("sampler.stablehlo")


def test_parameters_have_flat_names_and_are_float32(run, exported):
    tensors = load_file(exported / PARAMETERS)
    leaves, _ = jax.tree_util.tree_flatten_with_path(run.params)
    expected = {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}
    assert tensors.keys() == expected.keys()
    for name, leaf in expected.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], leaf)


def test_a_picture_holds_the_images(exported, tmp_path):
    for channels, mode in ((1, "L"), (3, "RGB")):
        images = np.arange(5 * 4 * 6 * channels, dtype=np.uint8)
        images = images.reshape(5, 4, 6, channels)
        standalone.write_png(tmp_path / "grid.png", images)
        with Image.open(tmp_path / "grid.png") as picture:
            assert picture.mode == mode
            grid = np.asarray(picture).reshape(*picture.size[::-1], channels)
        ours = image_grid(images, columns=3, scale=choose_scale(6))[..., :channels]
        np.testing.assert_array_equal(grid, ours)
        assert min(grid.shape[:2]) > 64


def test_a_flipped_bit_is_found_wherever_it_is(damaged):
    record = read_manifest(damaged)
    names = [*record["files"], "manifest.json"]
    groups = {f"group_{platform}.stablehlo" for platform in PLATFORMS}
    assert groups | {"README.md", "sample.py", "config.json"} < {*names}
    rng = np.random.default_rng(0)
    for name in names:
        whole = (damaged / name).read_bytes()
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        (damaged / name).write_bytes(flipped)
        with pytest.raises(InputError, match=re.escape(name)):
            dig_jax.load(damaged)
        with pytest.raises(standalone.InputError, match=rf"{name} is damaged"):
            draw(damaged, 1)
        (damaged / name).write_bytes(whole)
    dig_jax.load(damaged)


def test_the_pictures_of_sample_py_may_lie_in_its_folder(damaged):
    standalone.write_png(damaged / "samples.png", np.zeros((1, 8, 8, 1), np.uint8))
    standalone.read_record(damaged)
    assert "samples.png" not in read_manifest(damaged)["files"]


def test_a_missing_or_short_file_is_found(damaged):
    file = damaged / PARAMETERS
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"parameters.safetensors is damaged"):
        dig_jax.load(damaged)
    file.unlink()
    with pytest.raises(InputError, match=r"damaged: parameters.safetensors is missing"):
        dig_jax.load(damaged)


def test_a_folder_that_is_no_export_is_refused(damaged, tmp_path_factory):
    with pytest.raises(InputError, match=r"is no export: manifest.json.*--mode=export"):
        read_manifest(tmp_path_factory.mktemp("empty"))
    (damaged / "manifest.json").unlink()  # as an interrupted export leaves it
    with pytest.raises(InputError, match="is no export"):
        dig_jax.load(damaged)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"record": 3}', "\x00"])
def test_a_manifest_of_something_else_is_refused(damaged, text):
    (damaged / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        dig_jax.load(damaged)


def test_an_unknown_schema_is_refused(damaged):
    path = damaged / "manifest.json"
    whole = json.loads(path.read_text())
    whole["record"]["schema"] = 99
    path.write_text(json.dumps(whole))
    with pytest.raises(
        InputError, match=r"schema 99, and this version.*reads schema 1"
    ):
        dig_jax.load(damaged)


def test_parameters_of_another_network_are_refused(damaged):
    record = read_manifest(damaged)
    tensors = load_file(damaged / PARAMETERS)
    name = min(tensors)
    for wrong, said in (
        ({**tensors, "more": tensors[name]}, "more must be none, got float32"),
        ({**tensors, name: tensors[name][None]}, rf"{name} must be float32"),
        ({**tensors, name: tensors[name].astype(np.float16)}, "got float16"),
    ):
        save_file(wrong, damaged / PARAMETERS)
        write_manifest(damaged, record["files"], record)
        with pytest.raises(InputError, match=said):
            dig_jax.load(damaged)


def test_another_step_or_average_is_refused(exported):
    assert dig_jax.load(exported, step=7).step == 7
    with pytest.raises(InputError, match=r"one set of parameters.*step=7.*step=8"):
        dig_jax.load(exported, step=8)
    with pytest.raises(InputError, match=r"step=7.*step=best"):
        dig_jax.load(exported, step="best")
    with pytest.raises(InputError, match=r"sigma_rel=None.*sigma_rel=0\.1"):
        dig_jax.load(exported, sigma_rel=0.1)


def test_another_platform_or_solver_is_refused(run, tmp_path):
    options = SampleOptions(num_steps=1)
    with pytest.raises(InputError, match=r"for cpu, cuda, tpu, got metal"):
        export_run(run, options, tmp_path / "out", platforms=["cpu", "metal"])
    with pytest.raises(InputError, match=r"got none"):
        export_run(run, options, tmp_path / "out", platforms=[])
    with pytest.raises(InputError, match="'euler'"):
        export_run(run, SampleOptions(solver="euler"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("", "my licence", "mit\nx: y"):
        with pytest.raises(InputError, match=r"as in apache-2.0"):
            export_run(run, options, tmp_path / "out", licence=name)
    export_run(run, options, tmp_path / "out", platforms=["tpu"], num_pictures=0)
    with pytest.raises(
        standalone.InputError, match=r"exported for tpu, but this is cpu"
    ):
        draw(tmp_path / "out", 1)


@pytest.mark.parametrize(
    "asked", [{"num_images": 0}, {"labels": [10]}, {"labels": [-1]}, {"seed": 2**31}]
)
def test_what_cannot_be_drawn_is_refused(exported, asked):
    with pytest.raises(standalone.InputError, match=r"labels in range\(0, 10\), got"):
        draw(exported, **asked)


def test_a_network_that_diverges_is_an_error(damaged):
    record = read_manifest(damaged)
    tensors = load_file(damaged / PARAMETERS)
    save_file({k: v * np.nan for k, v in tensors.items()}, damaged / PARAMETERS)
    write_manifest(damaged, record["files"], record)
    with pytest.raises(standalone.NonFiniteError, match="not finite"):
        draw(damaged, 1)


def test_other_files_are_not_overwritten(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"new or empty folder.*holds checkpoints"):
        export_run(run, SampleOptions(num_steps=1), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"needs a folder, got the file"):
        export_run(run, SampleOptions(num_steps=1), tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "file"]


def test_no_folder_among_checkpoints_is_written_to(tmp_path):
    (tmp_path / "config.json").touch()
    for inside in ("checkpoints", "best/2", "checkpoints/new/export"):
        with pytest.raises(InputError, match=r"among the checkpoints .*--out=.*/out\."):
            open_out(tmp_path / inside)
    assert open_out(tmp_path / "out") == tmp_path / "out"


def test_an_export_replaces_an_earlier_one(run, damaged):
    assert (damaged / "examples.png").exists()
    (damaged / ".gitattributes").touch()  # as in a copy of a hub's repository
    options = SampleOptions(num_steps=1)
    export_run(run, options, damaged, platforms=["cpu"], num_pictures=0)
    assert not (damaged / "examples.png").exists()
    assert read_manifest(damaged)["platforms"] == ["cpu"]
    assert not (damaged / "group_tpu.stablehlo").exists()
    assert dig_jax.load(damaged).config.sample.solver == "euler_maruyama"


def test_the_card_counts_parameters_and_shows_the_newest_scores(
    run, exported, tmp_path
):
    scores = run.workdir / "eval" / "scores.jsonl"
    scores.parent.mkdir(exist_ok=True)
    old = {"schema": 2, "scores": {"fid": {"value": 9.0}}}
    fid = {"value": 1.25, "real": 0.5}
    new = {"schema": 2, "scores": {"fid": fid, "odd": None, EVIL: fid}, "real": "x"}
    new["samples"] = {"solver": EVIL}
    lines = [json.dumps(old), json.dumps(new), '{"half": ', "[]", '{"schema": 99}']
    scores.write_text("\n".join(lines))
    names = (EVIL, *(f"class {i}" for i in range(1, 10)))
    changed = run.experiment.changed({"data.class_names": names})
    export_run(
        replace(run, experiment=changed),
        SampleOptions(num_steps=5),
        tmp_path / "out",
        platforms=["cpu"],
        licence="CC-BY-4.0",
        num_pictures=0,
    )
    scores.unlink()
    card = (tmp_path / "out" / "README.md").read_text()
    count = sum(v.size for v in load_file(tmp_path / "out" / PARAMETERS).values())
    for said in (
        "| data set | digits |",
        f"| parameters | {count:,} |",
        "7 steps of 64 images",
        "euler_maruyama, 5 steps, 5 evaluations",
        "| fid | 1.2500 | 0.5000 |",
    ):
        assert said in card
    assert "9.0000" not in card
    assert "<script>" not in card
    assert "\x1b" not in card
    assert card.count("&lt;script&gt;") == 3
    assert "![" not in card
    _, head, card = card.split("---\n", 2)
    head = yaml.safe_load(head)
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "dig_jax")
    known = standalone.names_in_record(tmp_path / "out", "class_names")
    assert tuple(known) == names
    assert standalone.read_labels("class 3,0", known) == [3, 0]
    assert standalone.read_labels(EVIL, known) == [0]
    with pytest.raises(argparse.ArgumentTypeError, match=r",ten'; .*'class 1'"):
        standalone.read_labels("class 1,ten", known)
    whole = (exported / "README.md").read_text()
    assert "(examples.png)" in whole
    assert "openreview.net" in whole
    picture, read = exported / "examples.png", read_manifest(exported)["files"]
    assert picture.name in read
    with Image.open(picture) as shown:
        assert min(shown.size) > 64
    assert "None were recorded" in (exported / "README.md").read_text()


@pytest.fixture
def script(exported, monkeypatch, capsys):
    """sample.py of the export as a command: exit code, and what it says."""
    monkeypatch.setattr(standalone, "__file__", str(exported / "sample.py"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sample.py", *arguments])
        code = standalone.main()
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--labels=cat", "invalid labels value: 'cat'"),
        ("--labels=10", "labels in range(0, 10), got"),
        ("--x=1", "arguments: --x=1"),
        ("--num_images=many", "invalid int value: 'many'"),
        ("--num_images=0", "needs num_images >= 1"),
        ("--out=none/samples.png", "there is no folder none"),
        ("--out=samples.jpg", "must end in .png or .npz, got samples.jpg"),
        ("--out=folder.png", "is a folder: name a file in it"),
        ("--out=export/examples.png", "is a file of this export: choose another"),
    ],
)
def test_a_mistake_of_sample_py_is_one_line(
    argument, said, script, exported, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "export").symlink_to(exported)
    code, error = script(argument)
    assert code == EXIT_BAD_INPUT
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    read_manifest(exported)


def test_the_exit_codes_of_sample_py_are_those_of_dig_jax(script, monkeypatch):
    for error, code in (
        (standalone.NonFiniteError("x"), EXIT_NON_FINITE),
        (standalone.InputError("x"), EXIT_BAD_INPUT),
        (PermissionError(13, "Permission denied"), EXIT_BAD_INPUT),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(standalone, "draw_images", fail)
        assert script()[0] == code
