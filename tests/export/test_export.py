"""Exports: the same images without dig_jax."""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
import yaml
from jax import export
from PIL import Image
from safetensors.numpy import load_file
from small_exports import EVIL, NUM_IMAGES, SMALL, TRANSFORMER, create_run, draw

import dig_jax
from dig_jax.errors import (
    InputError,
)
from dig_jax.export import PLATFORMS, export_run, standalone
from dig_jax.files.paths import open_out
from dig_jax.options import SampleOptions
from dig_jax.reporting.images import choose_scale, image_grid
from dig_jax.storage.export_folder import PARAMETERS, read_manifest


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
