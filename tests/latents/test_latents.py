"""Latent data sets: made once, drawn from when used, decoded into what is scored."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dig_jax.config import load_config_file
from dig_jax.data import create_dataset
from dig_jax.data.latents import pack_moments, record_shape, unpack_moments
from dig_jax.data.loader import load_batches
from dig_jax.data.transforms import to_uint8, to_unit_range
from dig_jax.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from dig_jax.evaluation.real_images import RealImages
from dig_jax.experiment import create_experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.main import main
from dig_jax.models.autoencoder import (
    AutoencoderOptions,
    create_autoencoder,
    latents_of,
)
from dig_jax.prepare.command import main as prepare_main
from dig_jax.sampling.decoding import Decoder
from dig_jax.storage.autoencoder_file import write_autoencoder
from dig_jax.training.clean import clean_images, shown_record

SIZE = AutoencoderOptions(widths=(8, 8), blocks=1, groups=4)
NUM_IMAGES = 12
SIDE = 16
DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"
TINY = {
    "training.num_steps": 2,
    "training.batch_size": 8,
    "training.checkpoint_every": 2,
    "training.samples_per_class": 1,
    "training.diversity_every": 2,
    "training.evaluate_every": 0,
    "training.keep_best": "",
    "sample.solver": "dpm_solver",
    "sample.integrand": "x0",
    "sample.inner_times": "uniform",
    "sample.time_grid": "uniform",
    "sample.num_steps": 4,
    "sample.num_images": 6,
    "mesh.data": 1,
}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(without_optimizations):
    """Every test here."""


def write_random_autoencoder(path, seed, options=SIZE):
    """As large values as a trained one's, so that roundings and mistakes show."""
    autoencoder = create_autoencoder(options)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype(np.float32),
        jax.eval_shape(autoencoder.init, jax.random.key(0)),
    )
    write_autoencoder(path, autoencoder, params, {})
    return autoencoder, params


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of cut-outs of a smooth picture, prepared, and their latents."""
    folder = tmp_path_factory.mktemp("latents")
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:SIDE, :SIDE] / SIDE
    for index in range(NUM_IMAGES):
        phases = rng.uniform(0, 6, (3, 1, 1))
        picture = 127 + 100 * np.sin(6 * row + 9 * col * (1 + index % 2) + phases)
        name = folder / "pictures" / f"class_{index % 2}" / f"{index}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0).astype(np.uint8)).save(name)
    prepare = f"folder --source={folder}/pictures --data_dir={folder}/data"
    flags = [
        f"--image_size={SIDE}",
        "--transform=none",
        "--num_workers=0",
        "--test_share=0",
    ]
    assert prepare_main([*prepare.split(), *flags]) == EXIT_DONE
    write_random_autoencoder(folder / "one.safetensors", 1)
    for moments in ("float32", "float16"):
        made = make_latents(folder, f"{folder}/{moments}", moments=moments)
        assert made == EXIT_DONE
    return folder


def make_latents(folder, data_dir, autoencoder="one", **options):
    source = folder / "data" / "dig_folder_none_16x16x3"
    flags = {"source": source, "data_dir": data_dir, "batch_size": 5, **options}
    flags["autoencoder"] = folder / f"{autoencoder}.safetensors"
    words = [f"--{name}={value}" for name, value in flags.items()]
    return prepare_main(["latents", *words])


def config_of(folder, moments="float32", **data):
    config = load_config_file(str(DIGITS))
    config.unlock()
    config.backbone = dict(
        name="dit", width=16, depth=1, patch_size=4, num_heads=2, num_classes=2
    )
    config.data = dict(
        name="latents",
        image_size=SIDE // 2,
        channels=4,
        moments=moments,
        data_dir=str(folder / moments),
        autoencoder=str(folder / "one.safetensors"),
        random_flip=True,
        num_threads=0,
        **data,
    )
    config.sde = dict(name="vp_discrete")
    config.evaluation.features = "none"
    config.update_from_flattened_dict(TINY)
    return config


def pixels_of(folder, split="train"):
    source = create_dataset(
        "folder",
        split=split,
        image_size=SIDE,
        transform="none",
        data_dir=str(folder / "data"),
    )
    return np.stack([source[i]["image"] for i in range(len(source))])


def stored_moments(source):
    rows = jnp.asarray(np.stack([source[i]["image"] for i in range(len(source))]))
    return np.asarray(unpack_moments(rows, 4))


@pytest.mark.parametrize("moments", ["float32", "float16"])
def test_records_hold_what_was_packed(moments, rng):
    # [mirror, row, col, mean and log variance]
    values = rng.normal(size=(2, 3, 5, 8)).astype(np.float32)
    packed = pack_moments(values, moments)
    assert packed.shape == record_shape((3, 5, 4), moments)
    back = unpack_moments(jnp.asarray(packed)[None], 4)[:, 0]
    np.testing.assert_array_equal(back, values.astype(moments).astype(np.float32))


@pytest.mark.parametrize(("moments", "rtol"), [("float32", 1e-6), ("float16", 1e-3)])
def test_records_are_moments_of_images_and_of_mirrored_images(folder, moments, rtol):
    source = open_dataset(create_experiment(config_of(folder, moments)), "train")
    assert (len(source), source.num_classes) == (NUM_IMAGES, 2)
    found = stored_moments(source)
    autoencoder, params = write_random_autoencoder(folder / "again.safetensors", 1)
    x = to_unit_range(pixels_of(folder))
    encode = jax.jit(autoencoder.encode)
    expected = np.stack([encode(params, x), encode(params, x[:, :, ::-1])])
    # float16 has eleven bits; in float32 sums over batches of another size differ.
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    # A mirrored latent would be another thing.
    assert np.abs(found[0][:, :, ::-1] - found[1]).max() > 0.05
    shown = shown_record(source[0]["image"], create_experiment(config_of(folder)).data)
    assert (shown.shape, shown.dtype) == ((8, 8, 3), np.uint8)
    np.testing.assert_allclose(
        shown, 127.5 * (1 + 0.18215 * expected[0, 0, ..., :3] / 3), atol=0.6
    )
    if moments == "float32":
        decode = jax.jit(autoencoder.decode)
        there, back = (
            np.asarray(decode(params, latents_of(jnp.asarray(m[0]))))
            for m in (expected, found)
        )
        np.testing.assert_allclose(back, there, atol=1e-5)


def test_latents_are_drawn_from_their_moments(folder):
    """Mean, variance and share of mirror images over many draws of a record."""
    data = create_experiment(config_of(folder)).data
    stored = create_dataset(
        "latents", image_size=8, moments="float32", data_dir=data.data_dir
    )[0]["image"]
    many = jnp.asarray(np.broadcast_to(stored, (4000, *stored.shape)))
    drawn = np.asarray(clean_images(jax.random.key(0), many, data))
    assert drawn.shape == (4000, 8, 8, 4)
    means, log_variances = np.split(
        np.asarray(unpack_moments(many[:1], 4))[:, 0], 2, -1
    )
    scaled, variances = 0.18215 * means, 0.18215**2 * np.exp(log_variances)
    # Half of each: the variance of a mixture has that of its means, too.
    between = np.square(scaled[0] - scaled[1]) / 4
    expected, spread = scaled.mean(0), variances.mean(0) + between
    standard_error = np.sqrt(spread / 4000)
    assert (np.abs(drawn.mean(0) - expected) < 5 * standard_error).all()
    np.testing.assert_allclose(drawn.var(0), spread, rtol=0.15)


def test_the_same_data_set_is_found_and_another_autoencoder_refused(folder, capsys):
    assert make_latents(folder, f"{folder}/float32", moments="float32") == EXIT_DONE
    write_random_autoencoder(folder / "other.safetensors", 2)
    flags = dict(moments="float32", autoencoder="other")
    assert make_latents(folder, f"{folder}/float32", **flags) == EXIT_BAD_INPUT
    assert "already there" in capsys.readouterr().err
    for changes, said in (
        ({"autoencoder": str(folder / "other.safetensors")}, "another autoencoder"),
        ({"latent_scale": 0.2}, r"for the scale 0\.18215.*got 0\.2"),
        ({"moments": "float16"}, r"moments of float32: .*got float16"),
        ({"image_size": 4}, "must be prepared before"),
    ):
        config = config_of(folder)
        config.data.update(changes)
        with pytest.raises(InputError, match=said):
            open_dataset(create_experiment(config), "train")


def test_scores_are_of_the_images_that_were_encoded(folder, tmp_path):
    experiment = create_experiment(config_of(folder))
    real = RealImages(experiment, str(tmp_path))
    np.testing.assert_array_equal(real.all("train").images, pixels_of(folder))

    without = create_experiment(config_of(folder).copy_and_resolve_references())
    without = without.changed({"data.autoencoder": ""})
    with pytest.raises(InputError, match="scored as pixels: name the autoencoder"):
        RealImages(without, str(tmp_path)).source("train")

    moved = experiment.changed({"data.pixels": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match=r"are not in .*nowhere.*data\.pixels"):
        RealImages(moved, str(tmp_path)).source("train")
    other = shutil.copytree(
        folder / "data" / "dig_folder_none_16x16x3" / "1.0.0", tmp_path / "other"
    )
    told = json.loads((other / "metadata.json").read_text())
    told["content"]["train"] = "0" * 64
    (other / "metadata.json").write_text(json.dumps(told))
    changed = experiment.changed({"data.pixels": str(other)})
    with pytest.raises(InputError, match="are others than those"):
        RealImages(changed, str(tmp_path)).source("train")


def test_images_that_cannot_be_encoded_are_refused(folder, capsys, tmp_path):
    grey = AutoencoderOptions(widths=(8, 8), blocks=1, groups=4, image_channels=1)
    deep = AutoencoderOptions(widths=(8,) * 6, blocks=1, groups=4)
    for name, options, said in (
        ("grey", grey, "images of 1 channels"),
        ("deep", deep, "multiples of 32"),
    ):
        write_random_autoencoder(folder / f"{name}.safetensors", 1, options)
        assert make_latents(folder, tmp_path, autoencoder=name) == EXIT_BAD_INPUT
        assert said in capsys.readouterr().err
    assert make_latents(folder, tmp_path, source=tmp_path) == EXIT_BAD_INPUT
    assert "must be a prepared data set" in capsys.readouterr().err
    assert make_latents(folder, tmp_path, moments="int8") == EXIT_BAD_INPUT
    assert "prepare latents --help" in capsys.readouterr().err


def test_decoding_does_not_depend_on_how_many_at_a_time(folder, rng):
    experiment = create_experiment(config_of(folder))
    latents = rng.normal(size=(7, 8, 8, 4)).astype(np.float32)
    autoencoder, params = write_random_autoencoder(folder / "again.safetensors", 1)
    expected = to_uint8(jax.jit(autoencoder.decode)(params, latents))
    for group in (2, 7, 8):
        images = Decoder(experiment.data, experiment.mesh, group)(latents)
        assert images.shape == (7, SIDE, SIDE, 3)
        # A rounding may move a pixel to the next byte.
        assert np.abs(images.astype(int) - expected).max() <= 1


def flags_of(folder, workdir, mode):
    path = folder / "config.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        f"    return ConfigDict({config_of(folder).to_dict()!r})\n"
    )
    return [f"--config={path}", f"--workdir={workdir}", f"--mode={mode}"]


def test_a_run_in_latent_space_draws_and_scores_pixels(folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert main(flags_of(folder, workdir, "train")) == EXIT_DONE
    with Image.open(workdir / "samples" / "step_2.png") as preview:
        # Two rows, of a class each, of one decoded picture.
        assert preview.size[1] > 2 * SIDE
    draw = [*flags_of(folder, workdir, "sample"), "--config.sample.keep_latents=true"]
    assert main(draw) == EXIT_DONE
    with (
        np.load(workdir / "samples.npz") as drawn,
        np.load(workdir / "latents.npz") as kept,
    ):
        images, latents = drawn["images"], kept["latents"]
        told = json.loads(str(drawn["provenance"]))
    assert (images.shape, latents.shape) == ((6, SIDE, SIDE, 3), (6, 8, 8, 4))
    assert told["latent_scale"] == 0.18215
    experiment = create_experiment(config_of(folder))
    decoder = Decoder(experiment.data, experiment.mesh, 8)
    assert told["autoencoder"] == decoder.record["autoencoder"]
    np.testing.assert_array_equal(decoder(latents), images)

    assert main(flags_of(folder, workdir, "evaluate")) == EXIT_DONE
    record = json.loads((workdir / "eval" / "scores.jsonl").read_text().splitlines()[0])
    assert record["samples"]["autoencoder"] == decoder.record["autoencoder"]

    out = tmp_path / "export"
    assert main([*flags_of(folder, workdir, "export"), f"--out={out}"]) == EXIT_DONE
    script = [sys.executable, str(out / "sample.py"), "--num_images=6", "--seed=0"]
    subprocess.run([*script, f"--out={out / 'drawn.npz'}"], check=True, cwd=tmp_path)
    with np.load(out / "drawn.npz") as drawn:
        # Another program of the same numbers: a rounding may move a byte.
        assert np.abs(drawn["images"].astype(int) - images).max() <= 1

    # Without an autoencoder pictures show channels, and there is nothing to score.
    bare = ["--config.data.autoencoder=", f"--out={tmp_path / 'bare'}"]
    assert main([*flags_of(folder, workdir, "sample"), *bare]) == EXIT_DONE
    with np.load(tmp_path / "bare" / "samples.npz") as drawn:
        assert drawn["images"].shape == (6, 8, 8, 3)
        assert "shown" in json.loads(str(drawn["provenance"]))
    capsys.readouterr()
    for mode, said in (("evaluate", "name the autoencoder"), ("export", "name it")):
        assert main([*flags_of(folder, workdir, mode), bare[0]]) == EXIT_BAD_INPUT
        assert said in capsys.readouterr().err


def test_batches_of_latents_go_on_where_they_were(folder):
    source = open_dataset(create_experiment(config_of(folder)), "train")
    options = dict(batch_size=4, seed=0, num_threads=0)
    first, second = (load_batches(source, **options, start_step=s) for s in (0, 1))
    next(first)
    np.testing.assert_array_equal(next(first)["image"], next(second)["image"])
