"""No damaged folder is read, and nothing is drawn that cannot be."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_exports import draw

import dig_jax
from dig_jax.errors import (
    InputError,
)
from dig_jax.export import PLATFORMS, export_run, standalone
from dig_jax.options import SampleOptions
from dig_jax.storage.export_folder import PARAMETERS, read_manifest, write_manifest


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
