"""The command: from a published file to a folder that draws images, and back."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import dig_jax
from dig_jax.config import read_config_file
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.experiment import create_experiment
from dig_jax.interop.autoencoder import tensors_of as autoencoder_tensors
from dig_jax.interop.checkpoints import official_state_dict
from dig_jax.interop.convert import main
from dig_jax.interop.files import read_state_dict, write_state_dict
from dig_jax.interop.tensors import to_state_dict
from dig_jax.main import main as dig_jax_main
from dig_jax.models.autoencoder import AutoencoderOptions, create_autoencoder
from dig_jax.storage.autoencoder_file import read_autoencoder_file
from dig_jax.storage.fingerprint import named_leaves

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
BACKBONES = {
    "dimr": dict(width=8, depth=2, branches=2, num_heads=2),
    "diffit": dict(width=8, depth=1, num_heads=2, learned_variance=True),
    "uvit": dict(width=8, depth=2, num_heads=2),
    "dit": dict(width=8, depth=1, num_heads=2, learned_variance=True),
}
# As configs/imagenet256.py has them, in fewer steps.
DPM_SOLVER = dict(
    solver="dpm_solver",
    integrand="x0",
    inner_times="uniform",
    time_grid="uniform",
    num_steps=4,
)
DDPM = dict(
    solver="ancestral",
    variance="learned",
    time_grid="respaced",
    num_steps=3,
    t_end=0.0,
)
SAMPLERS = {"dimr": DPM_SOLVER, "uvit": DPM_SOLVER, "dit": DDPM, "diffit": DDPM}
backbones = pytest.mark.parametrize("name", BACKBONES)
CONFIG = f"""
import runpy

from ml_collections import ConfigDict

BACKBONES = {BACKBONES!r}
SAMPLERS = {SAMPLERS!r}

def get_config(name):
    config = runpy.run_path({str(DIGITS)!r})["get_config"]()
    config.unlock()
    config.backbone = ConfigDict(dict(name=name, num_classes=10, **BACKBONES[name]))
    config.objective.label_dropout = 0.1
    config.sde = ConfigDict(dict(name="vp_discrete"))
    config.sample.update(num_images=4, batch_size=4, **SAMPLERS[name])
    return config
"""


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file with random weights in the official naming for each network, and more."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "config.py").write_text(CONFIG)
    for name in BACKBONES:
        backbone, params = random_network(folder, name)
        state = official_state_dict(name, backbone, params)
        write_state_dict(folder / f"{name}.safetensors", state)
    return folder


def random_params(init):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.1 * rng.normal(size=leaf.shape)).astype(np.float32),
        jax.eval_shape(init, jax.random.key(0)),
    )


def random_network(folder, name):
    config = read_config_file(f"{folder / 'config.py'}:{name}")
    backbone = create_experiment(config).backbone
    return backbone, random_params(backbone.init)


def convert(folder, name, out, *more):
    source, config = folder / f"{name}.safetensors", folder / "config.py"
    return main([f"--from={source}", f"--config={config}:{name}", f"--to={out}", *more])


@backbones
def test_a_published_file_draws_images_and_comes_back(name, folder, tmp_path, capsys):
    out = tmp_path / "converted"
    assert convert(folder, name, out, "--config.sample.seed=5") == EXIT_DONE
    assert f"--mode=sample --workdir={out}" in capsys.readouterr().out
    assert dig_jax_main([f"--workdir={out}", "--mode=sample"]) == EXIT_DONE
    with np.load(out / "samples.npz") as drawn:
        images = drawn["images"]
    assert images.shape == (4, 8, 8, 1)
    run = dig_jax.load(str(out))
    assert run.config.sample.seed == 5
    jax.tree.map(
        np.testing.assert_array_equal, run.params, random_network(folder, name)[1]
    )
    np.testing.assert_array_equal(run.sample(4, seed=5), images)

    back = tmp_path / "back.safetensors"
    assert main([f"--back={out}", f"--to={back}"]) == EXIT_DONE
    source = load_file(folder / f"{name}.safetensors")
    for tensor, array in load_file(back).items():
        np.testing.assert_array_equal(array, source.pop(tensor))
    assert not source


def test_a_conversion_can_be_made_again_but_nothing_else_is_overwritten(
    folder, tmp_path, capsys
):
    out = tmp_path / "converted"
    assert convert(folder, "dit", out) == EXIT_DONE
    assert convert(folder, "dit", out) == EXIT_DONE
    (out / "notes.txt").write_text("mine")
    assert convert(folder, "dit", out) == EXIT_BAD_INPUT
    assert "holds notes.txt" in capsys.readouterr().err


@pytest.fixture(scope="module")
def autoencoder(folder):
    """(size, parameters, file in LDM's naming)."""
    made = create_autoencoder(AutoencoderOptions(widths=(32, 32), blocks=1))
    params = random_params(made.init)
    state = to_state_dict(params, autoencoder_tensors(named_leaves(params), "ldm"), [])
    path = folder / "kl.safetensors"
    save_file(state, path)
    return made, params, path


def test_an_autoencoder_is_converted_and_comes_back_in_each_naming(
    autoencoder, tmp_path
):
    made, params, path = autoencoder
    out = tmp_path / "autoencoder.safetensors"
    assert main([f"--from={path}", "--autoencoder", f"--to={out}"]) == EXIT_DONE
    read, again = read_autoencoder_file(out)
    assert read.options == made.options
    jax.tree.map(np.testing.assert_array_equal, again, params)
    for naming in ("ldm", "diffusers", "diffusers_old"):
        back = tmp_path / f"{naming}.safetensors"
        assert (
            main([f"--back={out}", f"--to={back}", f"--naming={naming}"]) == EXIT_DONE
        )
        once_more = tmp_path / "again.safetensors"
        assert (
            main([f"--from={back}", "--autoencoder", f"--to={once_more}"]) == EXIT_DONE
        )
        assert once_more.stat().st_size > 0
        _, same = read_autoencoder_file(once_more)
        jax.tree.map(np.testing.assert_array_equal, same, params)
    assert {*load_file(tmp_path / "ldm.safetensors")} == {*load_file(path)}


def test_damaged_autoencoders_are_refused(autoencoder, tmp_path):
    _, _, path = autoencoder
    with pytest.raises(InputError, match=r"no autoencoder of dig_jax. Make it with"):
        read_autoencoder_file(path)
    with pytest.raises(InputError, match="There is no autoencoder"):
        read_autoencoder_file(tmp_path / "none.safetensors")
    out = tmp_path / "autoencoder.safetensors"
    main([f"--from={path}", "--autoencoder", f"--to={out}"])
    out.write_bytes(out.read_bytes()[:-100])
    with pytest.raises(InputError, match="no whole file"):
        read_autoencoder_file(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to=x"], "Either --from=FILE.*or --back"),
        (["--from=a", "--back=b", "--to=x"], "not both"),
        (["--from=nothing.pth", "--autoencoder", "--to=x"], "no file nothing.pth"),
        (["--back=nothing", "--to=x.pth"], "No run in nothing"),
        (["--back=b", "--to=x", "--config=c.py"], "--config=c.py is of the conversion"),
        (["--from=a.pth", "--to=x"], "--config=FILE is needed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_lines_that_do_not_work_end_with_one_line(
    arguments, message, tmp_path, monkeypatch, capsys
):
    import re

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert len(said.strip().split("\n")) == 1


def test_files_of_another_kind_are_refused(tmp_path):
    for name in ("weights.npz", "weights"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=r"ends in \.safetensors, \.pth"):
            read_state_dict(tmp_path / name)
    with pytest.raises(InputError, match=r"ends in \.safetensors, \.pth"):
        write_state_dict(tmp_path / "weights.npz", {})


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_file_that_was_cut_short_is_refused(length, folder, tmp_path):
    whole = (folder / "dit.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:length])
    with pytest.raises(InputError, match="no whole file of safetensors"):
        read_state_dict(cut)


def test_torch_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(InputError, match=r"need torch \(pip install torch\)"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("nested", [None, "ema", "state_dict"])
def test_state_dicts_of_torch_are_read(nested, folder, tmp_path):
    torch = pytest.importorskip("torch")
    state = load_file(folder / "diffit.safetensors")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    half = {name: x.bfloat16() for name, x in tensors.items() if "mlp" in name}
    whole = {**tensors, **half}
    path = tmp_path / "w.pt"
    torch.save({nested: whole} if nested else whole, path)
    read = read_state_dict(path)
    assert set(read) == set(state)
    for name, array in read.items():
        expected = half[name].float().numpy() if name in half else state[name]
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_a_network_comes_back_as_a_state_dict_of_torch(folder, tmp_path):
    torch = pytest.importorskip("torch")
    state = load_file(folder / "dit.safetensors")
    write_state_dict(tmp_path / "w.pth", state)
    read = torch.load(tmp_path / "w.pth", weights_only=True)
    assert all(np.array_equal(read[name].numpy(), x) for name, x in state.items())
    assert set(read) == set(state)


def test_code_in_a_torch_file_does_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (ran,)

    torch.save({"w": Evil()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="would run code"):
        read_state_dict(tmp_path / "w.pth")
    assert not ran.exists()


def test_a_torch_file_that_was_cut_short_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="no whole state dict of torch"):
        read_state_dict(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match=r"must hold a state dict.*got list"):
        read_state_dict(path)
